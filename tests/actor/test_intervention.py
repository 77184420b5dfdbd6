import numpy as np
import pytest

from actor.intervention import NO_POLICY, Control
from robot_infra.interfaces import HOLD, Transition
from serl_launcher.types import Observation, Outcome, Source
from tests.actor.tiny_robot import Person, PromptFollower, TinyRobot


def control(*, human_ticks: set[int] | None = None, policy: PromptFollower | None = None, horizon: int = 3) -> Control:
    operator = None if human_ticks is None else Person(frozenset(human_ticks))
    return Control(policy=policy, operator=operator, execution_horizon=horizon)


@pytest.fixture
def observation() -> Observation:
    return TinyRobot().reset(seed=0)


def test_only_the_execution_horizon_of_a_chunk_is_executed(observation: Observation):
    policy = PromptFollower(horizon=8)
    acting = control(policy=policy, horizon=3)
    acting.begin(observation)
    for _ in range(7):
        acting.decide(observation)
    assert len(policy.batch_sizes) == 3


def test_every_action_of_a_chunk_carries_its_policy_version(observation: Observation):
    policy = PromptFollower(version=4)
    acting = control(policy=policy, horizon=2)
    acting.begin(observation)
    policy.version = 5
    assert [acting.decide(observation).policy_version for _ in range(4)] == [4, 4, 5, 5]


def test_a_takeover_drops_the_rest_of_the_chunk(observation: Observation):
    policy = PromptFollower()
    acting = control(human_ticks={1}, policy=policy)
    acting.begin(observation)
    sources = [acting.decide(observation).source for _ in range(3)]
    assert sources == [Source.POLICY, Source.HUMAN, Source.POLICY]
    assert len(policy.batch_sizes) == 2


def test_the_proposal_that_a_person_overrode_is_kept(observation: Observation):
    acting = control(human_ticks={1, 2}, policy=PromptFollower(version=4))
    acting.begin(observation)
    planned = PromptFollower().act([observation])[0].actions
    _, taken_over, driven = (acting.decide(observation) for _ in range(3))
    np.testing.assert_array_equal(taken_over.proposal, planned[1])
    assert taken_over.policy_version == 4
    assert driven.proposal is None
    assert driven.policy_version == NO_POLICY


def test_the_policy_is_not_asked_while_a_person_drives(observation: Observation):
    policy = PromptFollower()
    acting = control(human_ticks={0, 1, 2, 3, 4}, policy=policy)
    acting.begin(observation)
    for _ in range(5):
        acting.decide(observation)
    assert len(policy.batch_sizes) == 1


def test_each_takeover_is_counted_once(observation: Observation):
    acting = control(human_ticks={1, 2, 5, 6}, policy=PromptFollower())
    acting.begin(observation)
    for _ in range(8):
        acting.decide(observation)
    assert acting.num_takeovers == 2


def test_a_new_episode_forgets_the_chunk_of_the_last(observation: Observation):
    policy = PromptFollower()
    acting = control(policy=policy, horizon=4)
    acting.begin(observation)
    acting.decide(observation)
    acting.begin(observation)
    acting.decide(observation)
    assert len(policy.batch_sizes) == 2


def test_driving_without_a_policy_is_no_takeover(observation: Observation):
    acting = control(human_ticks={0, 1})
    acting.begin(observation)
    assert acting.decide(observation).source is Source.HUMAN
    assert acting.num_takeovers == 0


def test_without_a_command_from_anybody_the_robot_holds(observation: Observation):
    acting = control(human_ticks=set())
    acting.begin(observation)
    assert acting.decide(observation) is None


def test_without_a_person_the_environment_judges():
    robot = TinyRobot()
    robot.reset(seed=0)
    reached = robot.step(np.array([0.5, 0.5], np.float32))
    assert control(policy=PromptFollower()).judge(reached) == (Outcome.SUCCESS, "environment")


class Gone(Person):
    """Is lost at the second tick."""

    def command(self, observation: Observation, proposal: np.ndarray | None):
        super().command(observation, proposal)
        return HOLD if self.tick == 2 else None


class Silent(Person):
    def judge(self, transition: Transition):
        return None


def test_a_person_who_says_hold_keeps_the_policy_from_acting(observation: Observation):
    acting = Control(policy=PromptFollower(), operator=Gone(frozenset()), execution_horizon=4)
    acting.begin(observation)
    decisions = [acting.decide(observation) for _ in range(3)]
    assert [decision and decision.source for decision in decisions] == [Source.POLICY, None, Source.POLICY]


def test_a_person_may_leave_the_verdict_to_the_environment():
    robot = TinyRobot()
    robot.reset(seed=0)
    reached = robot.step(np.array([0.5, 0.5], np.float32))
    acting = Control(policy=PromptFollower(), operator=Silent(frozenset()), execution_horizon=4)
    assert acting.judge(reached) == (Outcome.SUCCESS, "environment")


def test_the_person_judges_where_there_is_one():
    robot = TinyRobot()
    robot.reset(seed=0)
    missed = robot.step(np.array([0.0, 0.0], np.float32))
    assert control(human_ticks=set(), policy=PromptFollower()).judge(missed) == (Outcome.FAILURE, "human")
