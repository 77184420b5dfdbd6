from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.replay.chunks import ChunkSampler, chunk_steps, concatenate
from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import action_of, image_of, make_episode, robot, state_of

SPEC = robot()
LENGTHS = (5, 3, 4)
ENDS = ("terminated", "truncated", "aborted")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReplayDataset:
    root: Path = tmp_path_factory.mktemp("replay")
    writer = DatasetWriter(root, SPEC)
    for number, (length, end) in enumerate(zip(LENGTHS, ENDS, strict=True)):
        writer.append(make_episode(SPEC, number, length, end=end, prompt=f"prompt {number}"))
    return ReplayDataset(root)


def sampler(dataset: ReplayDataset, horizon: int = 3, **options) -> ChunkSampler:
    return ChunkSampler(dataset, horizon=horizon, cameras=("cam_1", "cam_0"), discount=0.5, **options)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), horizon=st.integers(1, 12), data=st.data())
def test_chunks_never_leave_their_episode(lengths: list[int], horizon: int, data: st.DataObject) -> None:
    ends = np.cumsum(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.array(data.draw(st.lists(st.integers(0, int(ends[-1]) - 1), min_size=1, max_size=8)))

    chunk, is_pad = chunk_steps(steps, ends[episode[steps]] - 1, horizon)

    assert (episode[chunk] == episode[steps][:, None]).all()
    assert ((~is_pad).sum(axis=1) == np.minimum(horizon, ends[episode[steps]] - steps)).all()
    assert (np.diff(is_pad.astype(int), axis=1) >= 0).all()
    assert (chunk[:, 0] == steps).all()
    assert (np.where(is_pad, ends[episode[steps]][:, None] - 1, steps[:, None] + np.arange(horizon)) == chunk).all()


def test_padding_repeats_the_last_action(dataset: ReplayDataset) -> None:
    batch = sampler(dataset).sample(np.array([3]))
    np.testing.assert_array_equal(batch.actions[0], [action_of(0, 3), action_of(0, 4), action_of(0, 4)])
    assert batch.is_pad.tolist() == [[False, False, True]]


def test_images_follow_the_order_of_the_sampler_s_cameras(dataset: ReplayDataset) -> None:
    batch = sampler(dataset).sample(np.array([6]))
    assert batch.images.shape == (1, 2, 24, 24, 3)
    for number, camera in enumerate((1, 0)):
        np.testing.assert_allclose(batch.images[0, number], image_of(SPEC, camera, 1, 1), atol=2)
    np.testing.assert_array_equal(batch.state[0], state_of(1, 1))
    assert batch.prompts == ["prompt 1"]


def test_reward_is_discounted_inside_the_chunk(dataset: ReplayDataset) -> None:
    batch = sampler(dataset).sample(np.array([2, 3, 4, 0]))
    assert batch.reward.tolist() == [0.25, 0.5, 1.0, 0.0]


def test_termination_stops_bootstrapping(dataset: ReplayDataset) -> None:
    batch = sampler(dataset).sample(np.array([1, 2, 4]))
    assert batch.is_terminal.tolist() == [False, True, True]
    assert batch.discount.tolist() == [0.125, 0.0, 0.0]


def test_truncation_still_bootstraps(dataset: ReplayDataset) -> None:
    batch = sampler(dataset).sample(np.array([6, 7, 10]))
    assert not batch.is_terminal.any()
    assert batch.discount.tolist() == [0.25, 0.5, 0.25]


def test_next_observation_after_the_last_step_is_the_final_one(dataset: ReplayDataset) -> None:
    batch = sampler(dataset, with_next=True).sample(np.array([0, 4, 6]))
    assert batch.next_state is not None
    assert batch.next_images is not None
    np.testing.assert_array_equal(batch.next_state, [state_of(0, 3), state_of(0, 5), state_of(1, 3)])
    for sample, (episode, step) in enumerate([(0, 3), (0, 5), (1, 3)]):
        np.testing.assert_allclose(batch.next_images[sample, 1], image_of(SPEC, 0, episode, step), atol=2)


def test_successes_and_unlabelled_demonstrations_are_worth_imitating(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    recorded = [(outcome, source) for source in (Source.POLICY, Source.HUMAN) for outcome in Outcome]
    for number, (outcome, source) in enumerate(recorded):
        writer.append(make_episode(SPEC, number, 2, outcome=outcome, sources=[source] * 2))
    expected = {(Outcome.SUCCESS, Source.POLICY), (Outcome.SUCCESS, Source.HUMAN), (Outcome.UNLABELLED, Source.HUMAN)}
    batch = sampler(ReplayDataset(tmp_path), with_next=True).sample(np.arange(0, 2 * len(recorded), 2))
    assert batch.is_successful is not None
    assert batch.is_successful.tolist() == [each in expected for each in recorded]


def test_batches_join_in_order(dataset: ReplayDataset) -> None:
    chunks = sampler(dataset)
    joined = concatenate([chunks.sample(np.array([0, 1])), chunks.sample(np.array([7]))])
    whole = chunks.sample(np.array([0, 1, 7]))
    assert len(joined) == 3
    assert joined.prompts == whole.prompts
    np.testing.assert_array_equal(joined.images, whole.images)
    np.testing.assert_array_equal(joined.actions, whole.actions)


def test_an_unknown_camera_is_refused_with_the_known_ones(dataset: ReplayDataset) -> None:
    with pytest.raises(DatasetError, match="cam_0"):
        ChunkSampler(dataset, horizon=2, cameras=("cam_9",)).sample(np.array([0]))


def test_lossless_images_come_back_exactly(tmp_path: Path) -> None:
    spec = robot(encoding="raw", cameras=1)
    DatasetWriter(tmp_path, spec).append(make_episode(spec, 3, 2, outcome=Outcome.UNLABELLED))
    batch = ChunkSampler(ReplayDataset(tmp_path), horizon=1, cameras=("cam_0",), with_next=True).sample(np.array([1]))
    np.testing.assert_array_equal(batch.images[0, 0], image_of(spec, 0, 3, 1))
    assert batch.next_images is not None
    np.testing.assert_array_equal(batch.next_images[0, 0], image_of(spec, 0, 3, 2))
