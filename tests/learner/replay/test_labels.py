"""Every sample is right, whatever was recorded: random lengths, horizons, windows, late labels, growth, compaction."""

import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner.replay.batch import Batch
from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from learner.replay.views import View, accepted_steps, all_steps
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.datasets.copying import copy_episodes
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.recorded_episodes import action_of, image_of, make_episode, robot, state_of

SPEC = robot(size=8, cameras=1, encoding="raw")
DISCOUNT = 0.9
ENDS = ("terminated", "truncated", "stopped")

recordings = st.lists(
    st.tuples(st.integers(1, 7), st.sampled_from(ENDS), st.sampled_from(list(Outcome))), min_size=1, max_size=5
)
late_labels = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(list(Outcome))), max_size=3)


@settings(max_examples=settings().max_examples // 4, suppress_health_check=[HealthCheck.too_slow])
@given(
    recorded=recordings, labels=late_labels, horizon=st.integers(1, 9), capacity=st.integers(1, 30),
    is_compacted=st.booleans(), rewards_from_labels=st.booleans(),
)  # fmt: skip
def test_every_sample_that_can_be_drawn_is_right(
    recorded: list[tuple[int, str, Outcome]], labels: list[tuple[int, Outcome]], horizon: int, capacity: int,
    is_compacted: bool, rewards_from_labels: bool,
) -> None:  # fmt: skip
    memory = Path("/dev/shm")  # A sync takes no time there.
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        root = Path(folder) / "replay"
        writer = DatasetWriter(root, SPEC)
        dataset = ReplayDataset(root)
        outcomes: list[Outcome] = []
        for number, (length, end, outcome) in enumerate(recorded):
            writer.append(make_episode(SPEC, number, length, end=end, outcome=outcome))
            outcomes.append(outcome)
            dataset.refresh()
        for number, outcome in labels:
            if number < len(recorded):
                writer.relabel(f"a-1-{number}", EpisodeLabelled(f"a-1-{number}", outcome, "late", float(number)))
                outcomes[number] = outcome
        dataset.refresh()
        if is_compacted:
            copy_episodes(root, Path(folder) / "compact", range(len(recorded)), file_bytes=2**20)
            dataset = ReplayDataset(Path(folder) / "compact")
        check_view(dataset, recorded, outcomes, capacity=capacity)
        sampler = ChunkSampler(
            dataset, horizon=horizon, cameras=("cam_0",), discount=DISCOUNT, with_next=True,
            rewards_from_labels=rewards_from_labels,
        )  # fmt: skip
        lengths = [length for length, _, _ in recorded]
        ends = [
            end_of(outcomes[number], None) if rewards_from_labels else end_of(outcome, end)
            for number, (_, end, outcome) in enumerate(recorded)
        ]
        check_samples(sampler.sample(np.arange(sum(lengths))), lengths, ends)


def end_of(outcome: Outcome, end: str | None) -> tuple[bool, float]:
    """Returns whether an episode terminates with its last step and that step's reward, as recorded or by its label."""
    is_terminal = outcome in (Outcome.SUCCESS, Outcome.FAILURE) if end is None else end == "terminated"
    return is_terminal, float(outcome == Outcome.SUCCESS)


def check_view(
    dataset: ReplayDataset, recorded: list[tuple[int, str, Outcome]], outcomes: list[Outcome], *, capacity: int
) -> None:
    """Compares what may be drawn with what was recorded."""
    places = [(episode, step) for episode, (length, _, _) in enumerate(recorded) for step in range(length)]
    config = DatasetConfig(capacity=capacity, min_episode_steps=1)
    drawable = np.flatnonzero(accepted_steps(config, threshold=0.7, moving=all_steps)(dataset)).tolist()
    first_return = [float(outcome == Outcome.SUCCESS) for _, _, outcome in recorded]
    is_accepted = [
        first_return[episode] >= 0.7 and recorded[episode][1] == "terminated"
        if outcome == Outcome.UNLABELLED
        else outcome == Outcome.SUCCESS
        for episode, outcome in enumerate(outcomes)
    ]
    oldest = max(0, len(places) - capacity)
    assert drawable == [n for n, (episode, _) in enumerate(places) if is_accepted[episode] and n >= oldest]
    view = View(dataset, accepted_steps(config, threshold=0.7, moving=all_steps))
    if drawable:
        assert set(view.draw(np.random.default_rng(0), 400).tolist()) <= set(drawable)


def check_samples(batch: Batch, lengths: list[int], ends: list[tuple[bool, float]]) -> None:
    """The batch holds each step of episodes with these lengths and ends, in order."""
    places = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    assert len(batch) == len(places)
    for sample, (episode, step) in enumerate(places):
        check_sample(batch, sample, episode, step, length=lengths[episode], end=ends[episode])


def check_sample(batch: Batch, sample: int, episode: int, step: int, *, length: int, end: tuple[bool, float]) -> None:
    """One sample holds steps of its own episode alone, with the end and what followed told exactly."""
    is_terminal, last_reward = end
    horizon = batch.actions.shape[1]
    num_real = min(horizon, length - step)
    is_last = step + num_real == length
    np.testing.assert_array_equal(batch.state[sample], state_of(episode, step))
    np.testing.assert_array_equal(batch.images[sample, 0], image_of(SPEC, 0, episode, step))
    wanted = [action_of(episode, min(step + ahead, length - 1)) for ahead in range(horizon)]
    np.testing.assert_array_equal(batch.actions[sample], wanted)
    assert batch.is_pad[sample].tolist() == [ahead >= num_real for ahead in range(horizon)]
    assert batch.is_terminal[sample] == (is_last and is_terminal)
    np.testing.assert_allclose(batch.discount[sample], 0.0 if batch.is_terminal[sample] else DISCOUNT**num_real, 1e-6)
    reward = last_reward * DISCOUNT ** (num_real - 1) if is_last else 0.0
    np.testing.assert_allclose(batch.reward[sample], reward, rtol=1e-6)
    assert batch.next_state is not None
    assert batch.next_images is not None
    np.testing.assert_array_equal(batch.next_state[sample], state_of(episode, step + num_real))
    np.testing.assert_array_equal(batch.next_images[sample, 0], image_of(SPEC, 0, episode, step + num_real))


def test_a_person_s_late_label_decides_the_last_step_of_recorded_rewards(tmp_path: Path) -> None:
    """Episodes of two steps: vetoed, aborted and confirmed successes, a timeout that was one, one that failed."""
    recorded = [(Outcome.SUCCESS, "terminated")] * 3 + [(Outcome.UNLABELLED, "truncated")] * 2
    late = [Outcome.FAILURE, Outcome.ABORTED, Outcome.SUCCESS, Outcome.SUCCESS, Outcome.FAILURE]
    writer = DatasetWriter(tmp_path, SPEC)
    for number, (outcome, end) in enumerate(recorded):
        writer.append(make_episode(SPEC, number, 2, end=end, outcome=outcome))
    dataset = ReplayDataset(tmp_path)
    sampler = ChunkSampler(dataset, horizon=1, cameras=(), discount=DISCOUNT, with_next=True)
    last = np.arange(1, 10, 2)
    before = sampler.sample(last)
    assert before.reward.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert before.is_terminal.tolist() == [True, True, True, False, False]
    for number, outcome in enumerate(late):
        writer.relabel(f"a-1-{number}", EpisodeLabelled(f"a-1-{number}", outcome, "human", 1.0))
    dataset.refresh()
    fresh = ChunkSampler(ReplayDataset(tmp_path), horizon=1, cameras=(), discount=DISCOUNT, with_next=True)
    for after in (sampler.sample(last), fresh.sample(last)):
        assert after.reward.tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]
        assert after.is_terminal.tolist() == [True, False, True, True, True]
        np.testing.assert_allclose(after.discount, [0.0, DISCOUNT, 0.0, 0.0, 0.0])
    assert dataset.steps.reward[last].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
