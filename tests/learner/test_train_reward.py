import subprocess
import sys

import numpy as np
import pytest

from learner.replay.reader import ReplayDataset
from learner.reward.pictures import CALIBRATE, FINAL, LEARN, REPORT, pictures_of
from learner.reward.training import build_training
from serl_launcher.config.classifier import ClassifierConfig
from serl_launcher.errors import DatasetError
from serl_launcher.policies.reward_classifier import (
    calibrated_threshold,
    load_reward_classifier,
    save_reward_classifier,
)
from serl_launcher.types import Observation, Outcome


@pytest.fixture(name="dataset")
def fixture_dataset(run):
    """Pictures tell the step by their shade: late ones show success, in failures of half the length there are none."""
    run.record(*[Outcome.SUCCESS] * 4, length=40)
    run.record(*[Outcome.FAILURE] * 4, first=4, length=20)
    run.record(Outcome.ABORTED, Outcome.UNLABELLED, first=8)
    run.config.algo.batch_size = 16
    run.config.algo.optimizer.lr = 3e-3
    run.config.algo.classifier = ClassifierConfig(
        features=8, hidden_dims=[16], num_positive_steps=4, image_shift=0, evaluation_period=20
    )
    return ReplayDataset(run.directory.replay)


def test_the_end_of_a_success_shows_it_and_what_comes_just_before_does_not_count(dataset, run):
    run.config.algo.classifier.num_positive_steps = 2
    run.config.algo.classifier.num_ignored_steps = 3
    pictures = pictures_of(dataset, run.config.algo.classifier)
    first = pictures.episode == 0
    assert pictures.step[first & pictures.shows_success].tolist() == [39, FINAL]
    assert pictures.step[first & ~pictures.shows_success].tolist() == list(range(36))
    failed = pictures.episode == 4
    assert failed.sum() == 21
    assert not pictures.shows_success[failed].any()
    assert not np.isin(pictures.episode, (8, 9)).any()


def test_the_split_is_by_episode_with_both_kinds_on_both_sides(dataset, run):
    pictures = pictures_of(dataset, run.config.algo.classifier)
    for episode in range(8):
        assert len(set(pictures.purpose[pictures.episode == episode])) == 1
    for kind in (range(4), range(4, 8)):
        assert {pictures.purpose[pictures.episode == episode][0] for episode in kind} == {LEARN, CALIBRATE}


def test_a_threshold_is_measured_on_episodes_that_it_was_not_calibrated_on(dataset, run):
    run.config.algo.classifier.validation_fraction = 0.6
    pictures = pictures_of(dataset, run.config.algo.classifier)
    for kind in (range(4), range(4, 8)):
        purposes = {pictures.purpose[pictures.episode == episode][0] for episode in kind}
        assert purposes == {LEARN, CALIBRATE, REPORT}
    training = build_training(run.config, [dataset])
    certain = {CALIBRATE: (0.2, 0.9), REPORT: (0.95, 0.5)}  # Without and with success.
    training._probabilities = lambda *, shows, purpose: np.full(4, certain[purpose][shows], np.float32)
    quality = training.measure()
    assert quality.is_independent
    assert quality.threshold == pytest.approx(0.2, abs=1e-6)
    assert (quality.false_positive_rate, quality.recall) == (1.0, 1.0)


def test_few_episodes_and_a_threshold_that_nothing_passes_are_told(dataset, run, caplog):
    run.config.algo.max_updates = 0
    training = build_training(run.config, [dataset])
    training._probabilities = lambda *, shows, purpose: np.ones(4, np.float32)
    quality = training.train()
    assert not quality.is_independent
    assert (quality.threshold > 1, quality.recall) == (True, 0.0)
    assert "No picture passes the threshold" in caplog.text
    assert "Too few labelled episodes" in caplog.text


def test_the_threshold_lets_the_stated_share_of_negatives_pass():
    probabilities = np.linspace(0.0, 0.999, 1000, dtype=np.float32)
    for rate in (0.0, 0.01, 0.1):
        threshold = calibrated_threshold(probabilities, rate)
        assert (probabilities >= threshold).mean() == pytest.approx(rate, abs=1e-9)


def test_ties_do_not_pass_together():
    assert (np.array([0.2, 0.9, 0.9, 0.9], np.float32) >= calibrated_threshold([0.2, 0.9, 0.9, 0.9], 0.25)).sum() == 0


def test_success_is_learned_and_survives_the_disk(dataset, run, tmp_path):
    run.config.algo.max_updates = 60
    training = build_training(run.config, [dataset])
    before = training.measure()
    quality = training.train()
    assert quality.loss < before.loss
    assert not quality.is_independent
    assert quality.false_positive_rate <= run.config.algo.classifier.max_false_positive_rate
    save_reward_classifier(training.classifier, tmp_path)
    loaded = load_reward_classifier(tmp_path)
    assert loaded.spec.threshold == pytest.approx(quality.threshold)
    pictures = pictures_of(dataset, run.config.algo.classifier)
    images, states = pictures.read(np.arange(3), loaded.camera_names)
    named = {name: images[0, number] for number, name in enumerate(loaded.camera_names)}
    one = loaded.probability(Observation(images=named, state=states[0], prompt=""))
    assert one == pytest.approx(float(training.classifier.probabilities(images, states)[0]), abs=1e-5)


def test_without_successes_there_is_nothing_to_learn(run):
    run.record(*[Outcome.FAILURE] * 4)
    with pytest.raises(DatasetError, match="pictures that show success"):
        build_training(run.config, [ReplayDataset(run.directory.replay)])


@pytest.mark.slow
def test_the_learner_trains_a_classifier(dataset, run):
    del dataset
    subprocess.run(
        [
            sys.executable, "-m", "learner", "algo=reward_classifier", "algo.max_updates=5",
            f"output_dir={run.config.output_dir}", f"unique_identifier={run.config.unique_identifier}",
        ],
        check=True, timeout=110,
    )  # fmt: skip
    assert load_reward_classifier(run.directory.root / "reward_classifier").spec.threshold > 0
