import threading

import numpy as np
import pytest

from learner.replay.chunks import ChunkSampler
from learner.replay.held_out import HeldOut, drawn_only, is_held_out
from learner.replay.reader import ReplayDataset
from learner.replay.views import View, all_steps
from learner.trainer.build import build_trainer
from serl_launcher.metrics import read_rows
from serl_launcher.types import Outcome


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_share_is_met_and_the_first_episode_is_drawn(fraction):
    held_out = is_held_out(1000, fraction)
    assert abs(held_out.mean() - fraction) < 0.005
    assert fraction > 0.38 or not held_out[0]


def test_an_episode_stays_where_it_is_when_others_follow():
    assert np.array_equal(is_held_out(50, 0.2), is_held_out(500, 0.2)[:50])


def test_nothing_is_held_out_by_default():
    assert not is_held_out(100, 0.0).any()
    assert drawn_only(all_steps, 0.0) is all_steps


def test_drawn_and_measured_episodes_share_nothing(run):
    run.record(*[Outcome.SUCCESS] * 8, root=run.demonstrations)
    dataset = ReplayDataset(run.demonstrations)
    held_out = is_held_out(8, 0.25)
    assert held_out.sum() == 2
    drawn = View(dataset, drawn_only(all_steps, 0.25)).draw(np.random.default_rng(0), 500)
    assert set(dataset.steps.episode[drawn]) == set(np.flatnonzero(~held_out))
    sampler = ChunkSampler(dataset, horizon=4, cameras=dataset.camera_names)
    measured = HeldOut([(sampler, all_steps)], fraction=0.25, num_samples=6)
    batch = measured.refreshed()
    assert len(batch) == 6
    assert set(batch.state[:, 0]) == set(np.flatnonzero(held_out))
    assert measured.refreshed() is None


def test_the_trainer_measures_held_out_episodes(run):
    run.record(*[Outcome.SUCCESS] * 8, root=run.demonstrations)
    run.config.dataset.held_out_fraction = 0.25
    run.config.training.held_out_period = 2
    run.config.training.keep_best = "held_out"
    trainer = build_trainer(run.config)
    assert trainer.run(threading.Event())
    rows = [row for row in read_rows(run.directory.metrics / "trainer.jsonl") if "held_out/loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert trainer.status()["held_out_loss"] == rows[-1]["held_out/loss"]
    assert (run.directory.checkpoints / "BEST").is_file()
