from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from actor.progress import Progress
from actor.recorder import Recorder
from actor.rewards import JudgedEnv, RewardBus, Verdict
from actor.rewards.classifier import ClassifierWatcher
from actor.rewards.goal import GoalRewards
from actor.rewards.keys import VerdictKeys
from actor.rewards.late_labels import LateLabels
from actor.rewards.stages import StageRewards
from robot_infra.wrappers.gripper_penalty import GripperPenalty
from serl_launcher.config.beside import DevicesConfig, RewardsConfig
from serl_launcher.errors import ConfigError
from serl_launcher.types import Observation, Outcome
from tests.actor.recording import events_in, open_spool
from tests.actor.tiny_robot import SPEC, TinyRobot

SUCCESS, FAILURE = Verdict(outcome=Outcome.SUCCESS, by="human"), Verdict(outcome=Outcome.FAILURE, by="human")
STILL = np.zeros(2, np.float32)


def judged(bus: RewardBus, *, environment_judges: bool = False, max_steps: int = 20) -> JudgedEnv:
    return JudgedEnv(TinyRobot(max_steps=max_steps), bus, environment_judges=environment_judges)


@pytest.mark.parametrize(("verdict", "reward"), [(SUCCESS, 1.0), (FAILURE, 0.0)])
def test_a_verdict_ends_the_episode_with_its_reward(verdict: Verdict, reward: float):
    bus = RewardBus()
    env = judged(bus)
    env.reset(seed=0)
    assert not env.step(STILL).terminated
    bus.post(verdict)
    end = env.step(STILL)
    assert (end.terminated, end.truncated, end.reward, end.outcome, end.judged_by) == (
        True, False, reward, verdict.outcome, "human",
    )  # fmt: skip


@pytest.mark.parametrize(("verdict", "reward"), [(SUCCESS, 0.75), (FAILURE, -0.25), (None, -0.25)])
def test_what_the_action_costs_is_taken_off_also_where_a_person_judges(verdict: Verdict | None, reward: float):
    bus = RewardBus()
    robot = GripperPenalty(TinyRobot(), grippers=["j1"], penalty=0.25)
    env = JudgedEnv(robot, bus, environment_judges=False)
    env.reset(seed=0)
    assert env.step(STILL + 0.1).reward == 0.0
    if verdict is not None:
        bus.post(verdict)
    assert env.step(STILL - 0.1).reward == reward


def test_where_the_environment_is_no_judge_its_success_does_not_count_and_time_leaves_no_label():
    env = judged(RewardBus(), max_steps=2)
    env.reset(seed=0)
    first = env.step(np.array([0.5, 0.5], np.float32))
    assert (first.reward, first.terminated, first.truncated, first.outcome) == (0.0, False, True, Outcome.UNLABELLED)


def test_where_the_environment_judges_too_it_has_its_say():
    env = judged(RewardBus(), environment_judges=True)
    env.reset(seed=0)
    assert env.step(np.array([0.5, 0.5], np.float32)).success


def test_a_verdict_between_episodes_is_late_and_one_during_an_episode_is_not():
    bus = RewardBus()
    env = judged(bus)
    bus.post(SUCCESS)
    env.reset(seed=0)
    assert [verdict.outcome for verdict in bus.take_late()] == [Outcome.SUCCESS]
    bus.post(FAILURE)
    assert bus.take_late() == []
    env.step(STILL)
    bus.post(SUCCESS)
    assert [verdict.outcome for verdict in bus.take_late()] == [Outcome.SUCCESS]


def test_a_verdict_that_came_with_the_last_step_is_not_lost():
    bus = RewardBus()
    bus.begin()
    bus.post(SUCCESS)
    bus.end()
    assert [verdict.outcome for verdict in bus.take_late()] == [Outcome.SUCCESS]


def test_keys_judge_and_capital_keys_correct():
    bus = RewardBus()
    keys = VerdictKeys(bus)
    bus.begin()
    for key in "sxF":
        keys.on_key(key)
    verdict = bus.take()
    assert verdict is not None
    assert verdict.outcome is Outcome.SUCCESS
    assert [late.outcome for late in bus.take_late()] == [Outcome.FAILURE]


@dataclass
class Answers:
    values: list[float] = field(default_factory=list)

    def __call__(self, observation: Observation) -> float:
        return self.values.pop(0)


def test_one_false_positive_is_no_success():
    bus = RewardBus()
    watcher = ClassifierWatcher(Answers([0.9, 0.1, 0.9, 0.1, 0.9, 0.8]), bus, threshold=0.75, num_positive=3, window=4)
    bus.begin()
    watcher.begin()
    seen = TinyRobot().reset(seed=0)
    for _ in range(5):
        watcher.look(seen)
        assert bus.take() is None
    watcher.look(seen)
    verdict = bus.take()
    assert verdict is not None
    assert (verdict.outcome, verdict.by) == (Outcome.SUCCESS, "classifier")


@pytest.mark.parametrize("order", [(SUCCESS, FAILURE), (FAILURE, SUCCESS)])
def test_a_person_vetoes_a_classifier_whoever_was_first(order):
    bus = RewardBus()
    bus.begin()
    for verdict in order:
        bus.post(verdict if verdict is FAILURE else Verdict(outcome=Outcome.SUCCESS, by="classifier"))
    verdict = bus.take()
    assert verdict is not None
    assert (verdict.outcome, verdict.by) == (Outcome.FAILURE, "human")


def test_a_step_earns_the_stages_gained_and_the_last_one_is_success():
    """Two stages; the picture shows: nothing, the first, nothing again, both."""
    first, second = Answers([0.1, 0.9, 0.2, 0.9]), Answers([0.0, 0.3, 0.0, 0.8])
    bus = RewardBus()
    stages = StageRewards([(first, 0.75), (second, 0.75)], bus, num_positive=1, window=1)
    env = JudgedEnv(TinyRobot(max_steps=20), bus, environment_judges=False, rewarder=stages)
    env.reset(seed=0)
    transitions = [env.step(STILL) for _ in range(4)]
    assert [each.reward for each in transitions] == [0.0, 1.0, -1.0, 2.0]
    assert [each.terminated for each in transitions] == [False, False, False, True]
    assert (transitions[-1].outcome, transitions[-1].judged_by) == (Outcome.SUCCESS, "process")


def test_a_stage_is_reached_only_where_several_pictures_show_it():
    stages = StageRewards([(Answers([0.9, 0.1, 0.9, 0.9]), 0.5)], RewardBus(), num_positive=2, window=2)
    stages.begin()
    rewards = []
    for _ in range(4):
        stages.look(TinyRobot().reset(seed=0))
        rewards.append(stages.reward)
    assert rewards == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(("distance", "expected"), [(0.0, 2.0), (0.25, 0.5), (0.5, 0.0), (1.0, -1.0)])
def test_nearness_to_a_goal_by_hand(distance: float, expected: float):
    goal = GoalRewards({SPEC.state_names[1]: 0.3}, SPEC, scale=0.5, radius=0.05)
    state = np.array([9.0, 0.3 + distance], np.float32)
    goal.look(Observation(images={}, state=state, prompt=""))
    assert goal.reward == pytest.approx(expected, abs=1e-6)


def test_a_goal_earns_in_every_step_and_ends_nothing():
    goal = GoalRewards({SPEC.state_names[0]: 0.0}, SPEC, scale=0.5, radius=0.05)
    env = JudgedEnv(TinyRobot(max_steps=2), RewardBus(), environment_judges=False, rewarder=goal)
    env.reset(seed=0)
    end = env.step(STILL)
    assert end.reward == goal.reward
    assert (end.terminated, end.outcome) == (False, Outcome.UNLABELLED if end.truncated else None)


def test_a_goal_of_an_unknown_joint_is_refused():
    with pytest.raises(ConfigError, match="elbow"):
        GoalRewards({"elbow": 1.0}, SPEC, scale=0.5, radius=0.05)


def test_the_names_of_hi_ors_mean_ours():
    assert RewardsConfig(sources=["human", "outcome", "env"]).sources == ["keyboard", "classifier", "environment"]


def test_a_new_episode_forgets_the_pictures_of_the_one_before():
    bus = RewardBus()
    watcher = ClassifierWatcher(Answers([0.9, 0.9]), bus, threshold=0.75, num_positive=2, window=2)
    bus.begin()
    watcher.begin()
    watcher.look(TinyRobot().reset(seed=0))
    watcher.begin()
    watcher.look(TinyRobot().reset(seed=0))
    assert bus.take() is None


def test_late_labels_reach_the_episode_that_ended_last(tmp_path: Path):
    spool = open_spool(tmp_path)
    bus, recorder = RewardBus(), Recorder(log=spool, spec=SPEC, actor_id="actor-0")
    labels = LateLabels(bus=bus, recorder=recorder, progress=Progress.load(tmp_path / "progress.json"))
    bus.post(SUCCESS)
    labels.apply()
    recorder.last_episode_id = "actor-0-1-3"
    bus.post(FAILURE)
    labels.apply()
    assert [(event.episode_id, event.outcome) for event in events_in(spool)] == [("actor-0-1-3", Outcome.FAILURE)]
    spool.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RewardsConfig(sources=["oracle"]), "oracle"),
        (lambda: RewardsConfig(sources=[]), "sources"),
        (lambda: RewardsConfig(sources=["naive", "process"]), "one of"),
        (lambda: RewardsConfig(sources=["naive"], goal_scale=0.0), "goal_scale"),
        (lambda: RewardsConfig(num_positive=9, window=3), "num_positive"),
        (lambda: DevicesConfig(hand="foot"), "foot"),
        (lambda: DevicesConfig(hand="gamepad"), "path"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message: str):
    with pytest.raises(ConfigError, match=message):
        make()
