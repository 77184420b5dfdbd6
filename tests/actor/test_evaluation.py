from collections.abc import Sequence
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest

from actor.evaluation import Evaluation
from actor.evaluation_lane import Lane
from actor.evaluation_report import EpisodeResult
from actor.rollout import gate_of
from actor.start_states import StartState
from robot_infra import safety
from serl_launcher.config.actor import EvaluationConfig
from serl_launcher.errors import ConfigError
from tests.actor.tiny_robot import PROMPTS, Person, PromptFollower, TinyRobot


def evaluation(
    tmp_path: Path, *, num_lanes: int = 3, policy: PromptFollower | None = None, lanes: list[Lane] | None = None,
    recorded_starts: Sequence[StartState] | None = None, **settings: object,
) -> Evaluation:  # fmt: skip
    config = EvaluationConfig(**{"num_episodes": 10, "first_seed": 100, "num_videos": 0, **settings})
    return Evaluation(
        policy=policy or PromptFollower(),
        lanes=lanes or [lane() for _ in range(num_lanes)],
        config=config,
        execution_horizon=2,
        video_dir=tmp_path,
        recorded_starts=recorded_starts,
    )


def lane(robot: TinyRobot | None = None, person: Person | None = None, max_change: Sequence[float] = ()) -> Lane:
    robot = robot or TinyRobot()
    return Lane(env=robot, gate=gate_of(robot, safety.limits_of(robot.spec, max_change)), operator=person)


def without_clock(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    return [msgspec.structs.replace(result, duration_s=0.0) for result in results]


def test_every_start_state_is_played_once_in_the_order_of_the_seeds(tmp_path: Path):
    results = evaluation(tmp_path).run()
    assert [(result.episode, result.seed) for result in results] == [(n, 100 + n) for n in range(10)]


def test_a_policy_that_reaches_every_goal_always_succeeds(tmp_path: Path):
    assert all(result.success for result in evaluation(tmp_path).run())


def test_all_lanes_share_one_policy_call(tmp_path: Path):
    policy = PromptFollower()
    evaluation(tmp_path, num_lanes=4, policy=policy).run()
    assert max(policy.batch_sizes) == 4


def test_the_number_of_lanes_does_not_change_what_a_policy_without_noise_achieves(tmp_path: Path):
    few, many = evaluation(tmp_path, num_lanes=1).run(), evaluation(tmp_path, num_lanes=7).run()
    assert without_clock(few) == without_clock(many)


def test_told_wrong_prompts_the_policy_fails_and_both_prompts_are_reported(tmp_path: Path):
    results = evaluation(tmp_path, wrong_prompt=True).run()
    assert {(result.prompt, result.told_prompt) for result in results} == {PROMPTS, PROMPTS[::-1]}
    assert not any(result.success for result in results)


def test_a_wrong_prompt_needs_a_second_prompt(tmp_path: Path):
    with pytest.raises(ConfigError, match="needs two prompts or more"):
        evaluation(tmp_path, wrong_prompt=True, num_episodes=1).run()


def test_the_first_episodes_are_filmed_from_reset_to_the_end(tmp_path: Path):
    results = evaluation(tmp_path, num_videos=2).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode_000.mp4", "episode_001.mp4"]
    with av.open(str(tmp_path / "episode_000.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == results[0].num_steps + 1


def test_commands_are_limited_in_an_evaluation_too(tmp_path: Path):
    robot = TinyRobot()
    evaluation(tmp_path, num_episodes=1, lanes=[lane(robot, max_change=[0.05])]).run()
    steps = [abs(after - before).max() for before, after in zip(robot.commands, robot.commands[1:], strict=False)]
    assert max(steps) <= 0.05 + 1e-6


def test_an_episode_with_help_is_counted_and_is_no_success(tmp_path: Path):
    lanes = [lane(), lane(person=Person(frozenset({1, 2, 4})))]
    alone, helped = evaluation(tmp_path, lanes=lanes, num_episodes=2).run()
    assert (alone.success, alone.solved_with_help, alone.num_takeovers, alone.num_human_steps) == (True, False, 0, 0)
    assert (helped.success, helped.solved_with_help) == (False, True)
    assert (helped.num_takeovers, helped.num_human_steps) == (2, 3)


def test_a_person_who_takes_over_drops_the_rest_of_the_chunk_and_the_policy_is_asked_anew(tmp_path: Path):
    robot, policy = TinyRobot(), PromptFollower()
    lanes = [lane(robot, Person(frozenset({1, 2})))]
    [result] = evaluation(tmp_path, num_episodes=1, first_seed=101, policy=policy, lanes=lanes).run()
    # The person's steps are half as long as the policy's; the first chunk of two was cut after its first action.
    moved = [np.abs(after - before).max() for before, after in zip(robot.commands, robot.commands[1:], strict=False)]
    assert moved[:2] == pytest.approx([0.1, 0.1], abs=1e-6)
    assert moved[2] == pytest.approx(0.2, abs=1e-6)
    assert len(policy.batch_sizes) == 1 + -(-(result.num_steps - 3) // 2)


def test_a_person_who_says_hold_leaves_the_robot_where_it_is(tmp_path: Path):
    robot = TinyRobot(max_steps=5)
    lanes = [lane(robot, Person(frozenset({1, 2, 3, 4}), holds=True))]
    [result] = evaluation(tmp_path, num_episodes=1, lanes=lanes).run()
    assert not result.solved_with_help
    np.testing.assert_array_equal(np.stack(robot.commands), np.tile(robot.commands[0], (5, 1)))


def test_all_episodes_are_filmed_unless_a_number_is_given(tmp_path: Path):
    evaluation(tmp_path, num_episodes=3, num_videos=None).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"episode_00{number}.mp4" for number in range(3)]


def test_wrong_prompts_of_recorded_start_states_need_no_reset(tmp_path: Path):
    robot = TinyRobot()
    starts = [StartState(seed=seed, prompt=PROMPTS[seed % 2], state=[0.0, 0.0]) for seed in (4, 7, 8)]
    lanes = [lane(robot)]
    results = evaluation(tmp_path, num_episodes=9, lanes=lanes, wrong_prompt=True, recorded_starts=starts).run()
    assert robot.seeds == [4, 7, 8]
    assert [result.told_prompt for result in results] == [PROMPTS[1], PROMPTS[0], PROMPTS[1]]
