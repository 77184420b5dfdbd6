"""How an evaluation is doing, as the page shows it."""

import time
from dataclasses import dataclass, field

from actor.console.desk import Desk
from actor.console.loop_state import Rate
from actor.console.messages import State
from actor.console.shown_env import ShownEnv
from actor.evaluation import Evaluation
from actor.evaluation_report import success_rate
from actor.pacer import Pacer, num_late_ticks
from actor.plan import NO_POLICY
from actor.recovery import Recovery
from robot_infra import safety

UNPACED = Pacer(0.0)
"""An evaluated simulator plays as fast as it can."""


@dataclass(kw_only=True, slots=True)
class EvaluationState:
    """Satisfies `actor.console.server.Shown`; used by one thread, reads plain attributes of another's."""

    evaluation: Evaluation
    env: ShownEnv
    desk: Desk
    recovery: Recovery
    _rate: Rate = field(default_factory=Rate)

    def seen_by(self, viewer: int, *, num_viewers: int) -> State:
        """Returns what that viewer is told."""
        lane, results, now = self.evaluation.lanes[0], list(self.evaluation.attempts.results), time.monotonic()
        newest, rate = self.env.newest, success_rate(results)
        positions = None if newest is None else safety.standing_still(self.env.spec, newest.state)
        fault = self.recovery.reason or (lane.gate.fault.message if lane.gate.fault is not None else "")
        return State(
            mode=self.desk.mode, holder=self.desk.holder, has_seat=self.desk.seat == viewer, num_viewers=num_viewers,
            is_resetting=self.env.is_resetting, waits_for="",
            still_s=round(now - self.env.looped_s, 2) if newest is not None else 0.0,
            picture_age_s=round(now - self.env.seen_s, 2) if newest is not None else 0.0,
            rate_hz=round(self._rate.note(now, self.env.num_ticks), 1),
            num_missed=num_late_ticks(self.env, UNPACED),
            source="held" if fault or not lane.is_busy else "policy", fault=fault,
            episode=max(lane.episode, 0), step=lane.num_steps,
            num_human_steps=lane.num_human_steps, num_takeovers=lane.num_takeovers,
            prompt=newest.prompt if newest is not None else "",
            last_outcome=results[-1].outcome if results else "",
            policy_version=NO_POLICY,
            is_connected=True,  # No learner takes part, so none is missing.
            num_unsent=0, unsent_bytes=0, num_episodes=len(results),
            success_rate_20=round(success_rate(results[-20:]).success_rate, 3),
            intervention_rate_20=round(rate.intervention_rate, 3),
            state=() if positions is None else tuple(round(float(value), 4) for value in positions),
        )  # fmt: skip
