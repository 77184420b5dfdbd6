import math
import random

import numpy as np
import pytest

from actor.intervention import Control
from actor.latency import LatencyEstimate
from actor.realtime_plan import Answer, RealTimePlan
from serl_launcher.errors import SafetyError
from serl_launcher.types import ActionChunk, Observation, Source
from tests.actor.tiny_robot import Person


def see(tick: int) -> Observation:
    """The state tells the tick."""
    return Observation(images={}, state=np.array([tick, 0], np.float32), prompt="go")


class Delayed:
    """Answers a question of tick t after `delay` ticks with actions t, t + 1, ...: each names the tick it is for."""

    def __init__(self, *, horizon: int, delay: int = 0):
        self.horizon, self.delay = horizon, delay
        self.now = 0
        self.asked: list[int] = []
        self.unfinished = []
        self.under_way: list[tuple[int, int]] = []
        self.offset = 0.0

    def chunk(self, tick: int) -> ActionChunk:
        ticks = np.arange(tick, tick + self.horizon, dtype=np.float32) + self.offset
        return ActionChunk(
            actions=np.stack([ticks, ticks], axis=1), policy_version=tick, timings_ms={"round_trip": 50.0 * self.delay}
        )

    def chunk_for(self, observation: Observation, *, patience_s: float = 0.0) -> ActionChunk:
        return self.chunk(0)

    def ask(self, observation: Observation, *, tick: int, unfinished=None, timeout_s=math.inf) -> bool:
        self.asked.append(tick)
        self.unfinished.append(unfinished)
        self.under_way.append((self.now + self.delay, tick))
        return True

    def answers(self) -> list[Answer]:
        arrived = [tick for due, tick in self.under_way if due <= self.now]
        self.under_way = [(due, tick) for due, tick in self.under_way if due > self.now]
        return [Answer(tick=tick, chunk=self.chunk(tick)) for tick in arrived]

    @property
    def num_under_way(self) -> int:
        return len(self.under_way)

    def forget(self) -> None:
        self.under_way = []


def plan_for(policy: Delayed, *, execution_horizon: int = 4, **options) -> RealTimePlan:
    latency = LatencyEstimate(tick_s=0.05)
    return RealTimePlan(policy=policy, execution_horizon=execution_horizon, latency=latency, **options)


def run(plan: RealTimePlan, policy: Delayed, num_ticks: int) -> list[float | None]:
    """Returns the first number of each executed action; None where the robot held."""
    plan.begin(see(0))
    done = []
    for tick in range(num_ticks):
        policy.now = tick
        plan.look()
        planned = plan.take(see(tick))
        done.append(None if planned is None else float(planned.action[0]))
    return done


@pytest.mark.parametrize("delay", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("max_under_way", [1, 2])
def test_every_action_is_executed_at_the_tick_it_is_for(delay: int, max_under_way: int):
    policy = Delayed(horizon=24, delay=delay)
    done = run(plan_for(policy, max_under_way=max_under_way), policy, 60)
    assert done == list(range(60))


def test_questions_are_asked_every_execution_horizon():
    policy = Delayed(horizon=16, delay=2)
    run(plan_for(policy, execution_horizon=5), policy, 21)
    assert policy.asked == [5, 10, 15, 20]


def test_two_questions_under_way_serve_a_chunk_that_one_would_let_run_out():
    # Latency 8, horizon 13: with one question at a time an answer comes too late, with two it does not.
    assert None in run(plan_for(one := Delayed(horizon=13, delay=8), max_under_way=1), one, 60)
    assert None not in run(plan_for(two := Delayed(horizon=13, delay=8), max_under_way=2), two, 60)


def test_a_chunk_that_runs_out_holds_the_robot_and_the_next_loses_no_action():
    policy = Delayed(horizon=4, delay=6)
    plan = plan_for(policy, execution_horizon=4, max_under_way=1)
    done = run(plan, policy, 20)
    # Asked at 1, answered at 7: 1, 2 and 3 are executed meanwhile, then the robot stands and goes on with 4.
    assert done[:8] == [0, 1, 2, 3, None, None, None, 4]
    assert plan.num_held == done.count(None)
    assert plan.figures()["num_held_ticks"] == plan.num_held


def test_an_answer_that_comes_when_the_rest_is_nearly_over_skips_only_what_was_executed():
    policy = Delayed(horizon=6, delay=4)
    done = run(plan_for(policy, execution_horizon=4, max_under_way=1), policy, 10)
    # Asked at 3, executes 3, 4 and 5, holds at 6, then goes on with 6.
    assert done == [0, 1, 2, 3, 4, 5, None, 6, 7, 8]


def test_an_older_answer_never_replaces_a_newer_one():
    policy = Delayed(horizon=10)
    plan = plan_for(policy)
    plan.begin(see(0))
    policy.under_way = [(0, 3), (0, 1)]
    for tick in range(4):
        policy.now = tick
        plan.look()
    assert plan.take(see(3)).policy_version == 3


def test_an_ensemble_averages_what_chunks_say_of_the_same_tick():
    policy = Delayed(horizon=8)
    plan = plan_for(policy, chunking="ensemble", ensemble_decay=0.5)
    plan.begin(see(0))
    policy.offset = 10.0
    policy.under_way = [(2, 2)]
    for tick in range(3):
        policy.now = tick
        plan.look()
    weights = np.exp([0.0, -0.5])
    expected = np.average([2.0, 12.0], weights=weights)
    np.testing.assert_allclose(plan.take(see(2)).action, expected, rtol=1e-6)


def test_real_time_chunking_tells_what_is_still_planned_and_how_long_it_will_take():
    policy = Delayed(horizon=10, delay=3)
    plan = plan_for(policy, execution_horizon=4, chunking="rtc")
    run(plan, policy, 13)
    # How long the chunk at the start took says nothing; later ones took three ticks.
    first, second = policy.unfinished[0], policy.unfinished[1]
    assert first.actions[:, 0].tolist() == [4, 5, 6, 7, 8, 9]
    assert first.delay_ticks == 1
    assert second.actions[:, 0].tolist() == [8, 9, 10, 11, 12, 13]
    assert second.delay_ticks == 3


def test_real_time_chunking_asks_one_question_at_a_time():
    policy = Delayed(horizon=30, delay=9)
    run(plan_for(policy, execution_horizon=3, chunking="rtc", max_under_way=4), policy, 25)
    assert policy.asked == [3, 12, 21]


@pytest.mark.parametrize("delay", [7, 9, 10])
def test_real_time_chunking_asks_ahead_only_where_the_robot_would_stand_still(delay):
    policy = Delayed(horizon=16, delay=delay)
    plan = plan_for(policy, execution_horizon=4, chunking="rtc", max_under_way=2)
    plan.latency.note(0.05 * delay)
    run(plan, policy, 80)
    assert plan.num_held == 0
    most = max(sum(tick <= asked < tick + delay for asked in policy.asked) for tick in range(10, 70))
    assert most == (1 if delay < 8 else 2)


class Jittering(Delayed):
    """Answers after random ticks, questions in any order."""

    def __init__(self, *, horizon: int, longest: int, seed: int):
        super().__init__(horizon=horizon)
        self._random, self._longest = random.Random(seed), longest

    def chunk(self, tick: int) -> ActionChunk:
        chunk = super().chunk(tick)
        chunk.timings_ms["round_trip"] = 50.0 * self.delay
        return chunk

    def ask(self, observation: Observation, *, tick: int, unfinished=None, timeout_s=math.inf) -> bool:
        self.delay = self._random.randint(1, self._longest)
        return super().ask(observation, tick=tick, unfinished=unfinished)


@pytest.mark.parametrize("chunking", ["switch", "rtc"])
@pytest.mark.parametrize("execution_horizon", [4, 8])
def test_a_robot_whose_chunks_cover_the_longest_latency_never_stands_still(chunking, execution_horizon):
    # 9 ticks are 400 ms at 20 Hz and a model's time; a chunk of 16 covers them if the next question comes 7 later.
    # That is earlier than an execution horizon of 8: then such a latency must have been seen before.
    for seed in range(20):
        policy = Jittering(horizon=16, longest=9, seed=seed)
        plan = plan_for(policy, execution_horizon=execution_horizon, chunking=chunking, max_under_way=2)
        if execution_horizon > 7:
            plan.latency.note(0.45)
        run(plan, policy, 400)
        assert plan.num_held == 0


def test_a_takeover_forgets_everything_and_the_hand_back_asks_at_once():
    policy = Delayed(horizon=12, delay=1)
    plan = plan_for(policy)
    control = Control(policy=policy, operator=Person(frozenset({5, 6})), execution_horizon=4, plan=plan)
    control.begin(see(0))
    decisions = []
    for tick in range(12):
        policy.now = tick
        decisions.append(control.decide(see(tick)))
    sources = [None if decision is None else decision.source for decision in decisions]
    assert sources[5:9] == [Source.HUMAN, Source.HUMAN, None, Source.POLICY]
    assert decisions[5].proposal[0] == 5.0
    assert 7 in policy.asked
    # The robot held at tick 7, so the answer to that tick begins with its first action.
    assert [decision.action[0] for decision in decisions[8:]] == [7.0, 8.0, 9.0, 10.0]


def test_actions_that_are_not_finite_are_a_fault():
    policy = Delayed(horizon=8)
    policy.offset = float("nan")
    with pytest.raises(SafetyError, match="not finite"):
        plan_for(policy).begin(see(0))


def test_jumps_and_delays_of_chunks_are_noted():
    policy = Delayed(horizon=12, delay=2)
    plan = plan_for(policy, execution_horizon=4)
    plan.begin(see(0))
    policy.offset = 0.25
    for tick in range(8):
        policy.now = tick
        plan.look()
        plan.take(see(tick))
    assert [(note.tick, note.delay_ticks) for note in plan.notes] == [(0, 0), (4, 2)]
    assert plan.notes[1].jump == 0.25
    assert np.isnan(plan.notes[0].jump)


def test_the_estimate_is_the_longest_of_the_newest_latencies():
    latency = LatencyEstimate(tick_s=0.05, window=3)
    assert latency.ticks == 1
    for seconds in (0.4, 0.06, 0.11, 0.02):
        latency.note(seconds)
    assert latency.ticks == 3
    assert latency.longest_ticks_below(16) == 8
    assert latency.longest_ticks_below(8) == 3
    assert latency.ticks_below(3) == 2
    assert latency.ticks_below(1) == 1
    assert latency.figures() == {"latency_ms_p50": 85.0, "latency_ms_p99": 391.3}
