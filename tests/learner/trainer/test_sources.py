"""Batches come from the views that the configuration names, in its shares."""

from pathlib import Path

import numpy as np
import pytest

from learner.algorithms.interfaces import Sampling
from learner.algorithms.window import WholeWindow
from learner.replay.mixture import Mixture
from learner.replay.reader import ReplayDataset
from learner.trainer.sources import build_mixture
from serl_launcher.config import RunConfig
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.config.policy import PolicyConfig
from serl_launcher.config.training import AlgoConfig
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import ConfigError
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=8, cameras=1)
P, H = Source.POLICY, Source.HUMAN


class Learner(WholeWindow):
    """The part of an algorithm that says what it learns from."""

    sampling = Sampling(horizon=2)
    learns_online = True

    def __init__(self, config: RunConfig) -> None:
        self._dataset = config.dataset


def config_of(**dataset) -> RunConfig:
    return RunConfig(policy=PolicyConfig(), algo=AlgoConfig(batch_size=8), dataset=DatasetConfig(**dataset))


@pytest.fixture(name="datasets", scope="module")
def fixture_datasets(tmp_path_factory) -> tuple[ReplayDataset, ReplayDataset]:
    """Demonstrations, and a replay whose steps 0 to 3 succeeded, 4 to 7 failed; 3 and 7 were commanded by a person."""
    folder: Path = tmp_path_factory.mktemp("datasets")
    demonstrated = DatasetWriter(folder / "demonstrations", SPEC)
    demonstrated.append(make_episode(SPEC, 9, 5, sources=[H] * 5))
    writer = DatasetWriter(folder / "replay", SPEC)
    for number, outcome in enumerate([Outcome.SUCCESS, Outcome.FAILURE]):
        writer.append(make_episode(SPEC, number, 4, outcome=outcome, sources=[P, P, P, H]))
    return ReplayDataset(folder / "demonstrations"), ReplayDataset(folder / "replay")


def mixture_of(config: RunConfig, datasets, *, learns_online: bool = True) -> Mixture:
    learner = Learner(config)
    learner.learns_online = learns_online
    demonstrations, replay = datasets
    return build_mixture(config, learner, ("cam_0",), demonstrations=[demonstrations], replay=replay, part=(0, 1))


def test_shares_are_those_of_the_views(datasets) -> None:
    config = config_of(mixture={"interventions": 0.25, "demonstrations": 0.25, "successful": 0.5})
    mixture = mixture_of(config, datasets)
    drawn = [mixture.draw() for _ in range(20)]
    assert [source.name for source in mixture.sources] == [
        "demonstrations/0",
        "online/interventions",
        "online/successful",
    ]
    assert [[len(steps) for steps in batch] for batch in drawn] == [[2, 2, 4]] * 20
    found = [set(np.concatenate([batch[source] for batch in drawn]).tolist()) for source in range(3)]
    assert found == [{0, 1, 2, 3, 4}, {3, 7}, {0, 1, 2, 3}]


def test_without_a_mixture_the_offline_fraction_draws_what_it_always_drew(datasets) -> None:
    """The same seeds give the same batches and the same state as the mixture that says so by name."""
    usual = mixture_of(config_of(offline_fraction=0.25), datasets)
    named = mixture_of(config_of(mixture={"demonstrations": 0.25, "all": 0.75}), datasets)
    for _ in range(5):
        for mine, theirs in zip(usual.draw(), named.draw(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert usual.state_dict() == named.state_dict()


@pytest.mark.parametrize(
    ("mixture", "refusal"),
    [
        ({"succeeded": 1.0}, "may name demonstrations, all, successful, interventions, got 'succeeded'"),
        ({"all": 0.5, "successful": 0.6}, "sum to 1"),
        ({"all": 1.5, "successful": -0.5}, "positive shares"),
    ],
)
def test_a_mixture_that_is_none_is_refused(mixture: dict[str, float], refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        config_of(mixture=mixture)


def test_views_that_have_nothing_to_draw_ever_are_refused(datasets) -> None:
    demonstrations, replay = datasets
    nothing = ReplayDataset(replay.root / "nothing")
    with pytest.raises(ConfigError, match=r"set dataset\.repo_id"):
        mixture_of(config_of(mixture={"demonstrations": 1.0}), (nothing, replay))
    with pytest.raises(ConfigError, match="learns from demonstrations alone"):
        mixture_of(config_of(mixture={"all": 1.0}), (demonstrations, replay), learns_online=False)
