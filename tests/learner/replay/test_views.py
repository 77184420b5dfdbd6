from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learner.replay.reader import ReplayDataset
from learner.replay.views import (
    ONLINE_VIEWS,
    MovingSteps,
    View,
    accepted,
    accepted_steps,
    all_steps,
    demonstrations,
    is_moving,
    sampling_window,
    scores,
)
from serl_launcher.config.dataset import VIEWS, DatasetConfig, SamplingWeights
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import ConfigError, DatasetError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import make_episode, robot
from tools.replay.__main__ import main

SPEC = robot(size=8, cameras=1)
P, H = Source.POLICY, Source.HUMAN


def write(root: Path, *episodes: dict) -> tuple[DatasetWriter, ReplayDataset]:
    writer = DatasetWriter(root, SPEC)
    for number, episode in enumerate(episodes):
        writer.append(make_episode(SPEC, number, **episode))
    return writer, ReplayDataset(root)


def weights_of(dataset: ReplayDataset, config: DatasetConfig, threshold: float = 0.7) -> list[float]:
    return accepted_steps(config, threshold=threshold, moving=MovingSteps(config, horizon=2))(dataset).tolist()


def test_only_successful_episodes_are_accepted(tmp_path: Path) -> None:
    outcomes = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.ABORTED, Outcome.UNLABELLED]
    _, dataset = write(tmp_path, *({"length": 3, "outcome": outcome} for outcome in outcomes))
    assert accepted(dataset.episodes, threshold=0.7, min_steps=1).tolist() == [True, False, False, False]


def test_the_return_decides_where_there_is_no_label(tmp_path: Path) -> None:
    writer, dataset = write(tmp_path, {"length": 3, "outcome": Outcome.SUCCESS})
    writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.UNLABELLED, "", 1.0))
    dataset.refresh()
    assert scores(dataset.episodes).tolist() == [1.0]


def test_rewards_of_progress_accept_full_successes_and_no_episode_that_ran_out_of_time(tmp_path: Path) -> None:
    """Three stages: a success gained all of them, a timeout and a failure two. The fourth was judged by hand, early."""
    _, dataset = write(
        tmp_path,
        {"length": 3, "outcome": Outcome.SUCCESS},
        {"length": 3, "outcome": Outcome.UNLABELLED, "end": "truncated"},
        {"length": 3, "outcome": Outcome.FAILURE},
        {"length": 3, "outcome": Outcome.SUCCESS},
        {"length": 3, "outcome": Outcome.UNLABELLED},
    )
    episodes = replace(dataset.episodes, episode_return=np.array([3.0, 2.0, 2.0, 0.2, 2.0]))
    assert scores(episodes).tolist() == [3.0, 0.0, 0.0, 1.0, 2.0]
    assert accepted(episodes, threshold=2.5, min_steps=1).tolist() == [True, False, False, False, False]
    assert accepted(episodes, threshold=0.7, min_steps=1).tolist() == [True, False, False, True, True]


def test_an_episode_saved_by_a_person_teaches_the_rescue_and_not_what_led_to_it(tmp_path: Path) -> None:
    """Retries in one episode: twice the policy fails and is taken over, the third time it succeeds."""
    _, dataset = write(
        tmp_path, {"length": 14, "outcome": Outcome.SUCCESS, "sources": [P, P, P, P, H, H, P, P, P, H, P, P, P, P]}
    )
    config = DatasetConfig(weights=SamplingWeights(intervention=3.0, pre_intervention_s=0.2))
    assert weights_of(dataset, config) == [1, 1, 0, 0, 3, 3, 1, 0, 0, 3, 1, 1, 1, 1]


def test_short_episodes_are_not_accepted(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 1}, {"length": 2})
    assert weights_of(dataset, DatasetConfig(min_episode_steps=2)) == [0, 1, 1]


def test_steps_before_a_takeover_are_left_out_and_interventions_weigh_more(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 7, "sources": [P, P, P, P, H, H, P]}, {"length": 2})
    config = DatasetConfig(weights=SamplingWeights(intervention=3.0, pre_intervention_s=0.2))
    assert weights_of(dataset, config) == [1, 1, 0, 0, 3, 3, 1, 1, 1]


def test_the_lead_does_not_reach_into_the_episode_before(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 2}, {"length": 3, "sources": [P, H, H]})
    assert weights_of(dataset, DatasetConfig()) == [1, 1, 0, 2, 2]


def test_earlier_interventions_keep_their_weight_before_a_second_takeover(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 5, "sources": [P, H, P, H, H]})
    assert weights_of(dataset, DatasetConfig()) == [0, 2, 0, 2, 2]


def test_the_policy_s_own_steps_can_be_drawn_at_a_lower_rate_than_a_person_s(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 8, "sources": [P, P, P, P, H, H, P, P]}, {"length": 4, "sources": [P] * 4})
    config = DatasetConfig(policy_stride=3, weights=SamplingWeights(intervention=1.0, pre_intervention=1.0))
    # Counted anew from where the policy takes control: at the beginning, after the takeover, in each episode.
    assert weights_of(dataset, config) == [1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 0, 1]


def test_a_stride_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="policy_stride must be 1 or more"):
        DatasetConfig(policy_stride=0)


def test_an_episode_of_a_person_alone_has_no_interventions(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 3, "sources": [H, H, H]})
    assert weights_of(dataset, DatasetConfig()) == [1, 1, 1]
    assert dataset.episodes.num_intervention_steps.tolist() == [0]


def test_only_the_newest_steps_are_drawn_beyond_the_capacity(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 3}, {"length": 3})
    assert weights_of(dataset, DatasetConfig(capacity=4)) == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("pinned", [["0"], ["a-1-0"]])
def test_pinned_episodes_stay_in_the_sampling_window(tmp_path: Path, pinned: list[str]) -> None:
    _, dataset = write(tmp_path, {"length": 2}, {"length": 2}, {"length": 2})
    assert weights_of(dataset, DatasetConfig(capacity=2, pinned=pinned)) == [1, 1, 0, 0, 1, 1]


def test_pins_are_read_from_a_file(tmp_path: Path) -> None:
    _, dataset = write(tmp_path / "replay", {"length": 2}, {"length": 2}, {"length": 2})
    config = DatasetConfig(capacity=2, pinned=[f"@{tmp_path / 'pins'}"])
    with pytest.raises(ConfigError, match="one episode a line"):
        weights_of(dataset, config)
    (tmp_path / "pins").write_text("1\n\na-1-0\n")
    assert weights_of(dataset, config) == [1] * 6


def test_episodes_are_pinned_while_the_dataset_is_read(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 2}, {"length": 2}, {"length": 2})
    view = View(dataset, lambda each: sampling_window(each, DatasetConfig(capacity=2)))
    assert view.num_steps == 2
    assert main(["pin", str(tmp_path), "0", "a-1-1"]) == 0
    assert dataset.refresh()
    assert not dataset.refresh()
    assert view.num_steps == 6
    assert main(["pin", str(tmp_path), "1", "--remove"]) == 0
    assert dataset.refresh()
    assert np.flatnonzero(sampling_window(dataset, DatasetConfig(capacity=2))).tolist() == [0, 1, 4, 5]


def test_the_views_of_the_replay(tmp_path: Path) -> None:
    _, dataset = write(
        tmp_path, {"length": 3, "sources": [P, H, P]}, {"length": 2, "outcome": Outcome.FAILURE, "sources": [P, H]},
        {"length": 2, "sources": [H, H]},
    )  # fmt: skip
    assert {"demonstrations", *ONLINE_VIEWS} == set(VIEWS)
    found = {name: np.flatnonzero(view(dataset)).tolist() for name, view in ONLINE_VIEWS.items()}
    assert found == {"all": list(range(7)), "successful": [0, 1, 2, 5, 6], "interventions": [1, 4]}


def test_demonstrations_that_failed_are_left_out(tmp_path: Path) -> None:
    _, dataset = write(
        tmp_path, {"length": 2, "outcome": Outcome.FAILURE}, {"length": 2, "outcome": Outcome.UNLABELLED}
    )
    assert demonstrations(DatasetConfig(), horizon=2)(dataset).tolist() == [0, 0, 1, 1]


def test_chunks_that_move_no_joint_are_not_drawn(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 6})
    dataset.steps.action[:4] = 0.5
    # The last step is a chunk of one action; it moves, compared with the command before it.
    steps = np.arange(6)
    assert is_moving(dataset, steps, threshold=1e-3, horizon=2).tolist() == [False, False, False, True, True, True]
    assert is_moving(dataset, steps, threshold=1e-3, horizon=1).tolist() == [False, False, False, False, True, True]
    assert is_moving(dataset, steps, threshold=0.0, horizon=2).all()


def test_the_noop_filter_follows_a_dataset_that_grows(tmp_path: Path) -> None:
    writer, dataset = write(tmp_path, {"length": 4})
    config = DatasetConfig(noop_threshold=1e-3)
    moving = MovingSteps(config, horizon=2)
    known = moving(dataset)
    writer.append(make_episode(SPEC, 1, 5))
    dataset.refresh()
    fresh = MovingSteps(config, horizon=2)(dataset)
    assert moving(dataset).tolist() == fresh.tolist()
    assert fresh[:4].tolist() == known.tolist()
    assert len(fresh) == 9


def test_only_the_first_actions_of_a_chunk_must_move(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 6, "outcome": Outcome.SUCCESS})
    dataset.steps.action[:4] = 0.5

    def drawn(noop_horizon: int) -> list[float]:
        config = DatasetConfig(noop_threshold=1e-3, noop_horizon=noop_horizon)
        return accepted_steps(config, threshold=0.7, moving=MovingSteps(config, horizon=4))(dataset).tolist()

    assert drawn(0) == [0, 1, 1, 1, 1, 1]
    assert drawn(1) == [0, 0, 0, 0, 1, 1]


def test_a_view_follows_the_dataset(tmp_path: Path) -> None:
    writer, dataset = write(tmp_path, {"length": 2, "outcome": Outcome.FAILURE})
    view = View(dataset, accepted_steps(DatasetConfig(), threshold=0.7, moving=MovingSteps(DatasetConfig(), horizon=2)))
    assert view.num_steps == 0
    with pytest.raises(DatasetError, match="nothing was accepted"):
        view.draw(np.random.default_rng(0), 1)
    writer.append(make_episode(SPEC, 1, 3))
    dataset.refresh()
    assert view.num_steps == 3
    assert set(view.draw(np.random.default_rng(0), 100).tolist()) == {2, 3, 4}


def test_a_new_rule_takes_effect_at_once(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 2})
    view = View(dataset, all_steps)
    assert view.num_steps == 2
    view.set_rule(accepted_steps(DatasetConfig(), threshold=2.0, moving=MovingSteps(DatasetConfig(), horizon=2)))
    assert view.num_steps == 0


def test_steps_are_drawn_by_weight(tmp_path: Path) -> None:
    _, dataset = write(tmp_path, {"length": 4})
    view = View(dataset, lambda _: np.array([0.0, 1.0, 0.0, 3.0]))
    drawn = view.draw(np.random.default_rng(0), 4000)
    assert set(drawn.tolist()) == {1, 3}
    assert (drawn == 3).mean() == pytest.approx(0.75, abs=0.03)
