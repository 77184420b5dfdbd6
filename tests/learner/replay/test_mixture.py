import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.replay.chunks import ChunkSampler
from learner.replay.mixture import Mixture, MixtureSource
from learner.replay.reader import ReplayDataset
from learner.replay.views import View, all_steps
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=8, cameras=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReplayDataset:
    root: Path = tmp_path_factory.mktemp("replay")
    DatasetWriter(root, SPEC).append(make_episode(SPEC, 0, 8))
    return ReplayDataset(root)


def source(dataset: ReplayDataset, fraction: float, name: str = "source") -> MixtureSource:
    chunks = ChunkSampler(dataset, horizon=2, cameras=("cam_0",))
    return MixtureSource(name=name, view=View(dataset, all_steps), sampler=chunks, fraction=fraction)


@settings(deadline=None)
@given(fractions=st.lists(st.floats(0.001, 1), min_size=1, max_size=4), batch_size=st.integers(1, 70))
def test_ratios_are_exact_over_many_batches(dataset: ReplayDataset, fractions: list[float], batch_size: int) -> None:
    mixture = Mixture([source(dataset, fraction) for fraction in fractions], batch_size, 0)
    counts = np.array([mixture.counts() for _ in range(40)])
    assert (counts.sum(axis=1) == batch_size).all()
    assert (counts >= 0).all()
    expected = np.array(fractions) / sum(fractions) * batch_size * 40
    assert np.abs(counts.sum(axis=0) - expected).max() < len(fractions)


def test_an_even_share_is_even_in_every_batch(dataset: ReplayDataset) -> None:
    mixture = Mixture([source(dataset, 0.5), source(dataset, 0.5)], 64, 0)
    assert [mixture.counts().tolist() for _ in range(3)] == [[32, 32]] * 3


def test_the_others_take_the_share_of_an_empty_source(dataset: ReplayDataset, tmp_path: Path) -> None:
    online = ReplayDataset(tmp_path)
    mixture = Mixture([source(dataset, 0.5), source(online, 0.5)], 10, 0)
    assert mixture.counts().tolist() == [10, 0]
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 4))
    online.refresh()
    assert mixture.counts().tolist() == [5, 5]
    assert len(mixture.sample()) == 10


def test_a_mixture_without_anything_to_draw_says_so(tmp_path: Path) -> None:
    mixture = Mixture([source(ReplayDataset(tmp_path), 1.0, "online")], 4, 0)
    assert mixture.is_empty
    with pytest.raises(DatasetError, match="online"):
        mixture.sample()


def test_the_same_seed_draws_the_same_steps(dataset: ReplayDataset) -> None:
    first, second = (Mixture([source(dataset, 0.3), source(dataset, 0.7)], 9, 5) for _ in range(2))
    for _ in range(4):
        for mine, theirs in zip(first.draw(), second.draw(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_restored_mixture_goes_on_with_the_same_batch(dataset: ReplayDataset) -> None:
    mixture = Mixture([source(dataset, 0.3), source(dataset, 0.7)], 9, 5)
    mixture.draw()
    state = json.loads(json.dumps(mixture.state_dict()))
    expected = [np.concatenate(mixture.draw()).tolist() for _ in range(3)]

    restored = Mixture([source(dataset, 0.3), source(dataset, 0.7)], 9, 99)
    restored.load_state_dict(state)

    assert [np.concatenate(restored.draw()).tolist() for _ in range(3)] == expected


def test_a_run_continues_with_a_source_that_was_added(dataset: ReplayDataset, caplog: pytest.LogCaptureFixture) -> None:
    mixture = Mixture([source(dataset, 0.3), source(dataset, 0.7)], 9, 5)
    mixture.draw()
    more = Mixture([source(dataset, 0.3), source(dataset, 0.3, "added"), source(dataset, 0.4)], 9, 99)
    more.load_state_dict(json.loads(json.dumps(mixture.state_dict())))
    assert "3 sources of samples instead of 2: source, added, source" in caplog.text
    assert more.state_dict()["rng"] == mixture.state_dict()["rng"]
    assert sum(more.counts()) == 9
