"""How the control loop is doing, read from outside of it: plain attributes, no lock, nothing that makes it wait."""

import time
from collections import deque
from dataclasses import dataclass, field

from actor.console.desk import Desk
from actor.console.messages import State
from actor.console.shown_env import ShownEnv
from actor.pacer import num_late_ticks
from actor.plan import NO_POLICY
from actor.recovery import Recovery
from actor.reporting import Connection
from actor.rollout import Rollout
from actor.spool import Spool
from robot_infra import safety
from serl_launcher.types import Source

RATE_WINDOW_S = 1.0


@dataclass(slots=True)
class Rate:
    """Ticks per second over the last second."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, now: float, count: int) -> float:
        """Returns the rate after `count` ticks so far."""
        self.seen.append((now, count))
        while len(self.seen) > 2 and now - self.seen[1][0] >= RATE_WINDOW_S:
            self.seen.popleft()
        began_s, before = self.seen[0]
        return (count - before) / (now - began_s) if now > began_s else 0.0


@dataclass(kw_only=True, slots=True)
class LoopState:
    """Everything that the page shows beside the pictures; used by one thread."""

    rollout: Rollout
    env: ShownEnv
    desk: Desk
    spool: Spool
    connection: Connection
    recovery: Recovery
    _rate: Rate = field(default_factory=Rate)

    def seen_by(self, viewer: int, *, num_viewers: int) -> State:
        """Returns what that viewer is told."""
        rollout, progress, now = self.rollout, self.rollout.progress, time.monotonic()
        fault = self.recovery.reason or (rollout.gate.fault.message if rollout.gate.fault is not None else "")
        newest = self.env.newest
        still_s, picture_age_s = now - self.env.looped_s, now - self.env.seen_s
        positions = None if newest is None else safety.standing_still(self.env.spec, newest.state)
        return State(
            mode=self.desk.mode, holder=self.desk.holder, has_seat=self.desk.seat == viewer, num_viewers=num_viewers,
            is_resetting=self.env.is_resetting, waits_for=rollout.waits_for,
            still_s=round(still_s, 2) if newest is not None else 0.0,
            picture_age_s=round(picture_age_s, 2) if newest is not None else 0.0,
            rate_hz=round(self._rate.note(now, self.env.num_ticks), 1),
            num_missed=num_late_ticks(self.env, rollout.pacer),
            source="held" if self.recovery.reason else _source_of(rollout), fault=fault,
            episode=max(rollout.recorder.number, 0), step=rollout.recorder.num_steps,
            num_human_steps=rollout.control.num_human_steps, num_takeovers=rollout.control.num_takeovers,
            prompt=newest.prompt if newest is not None else "", last_outcome=rollout.recorder.last_outcome or "",
            policy_version=_policy_version(rollout),
            is_connected=self.connection.is_connected, num_unsent=self.spool.num_pending,
            unsent_bytes=self.spool.pending_bytes, num_episodes=progress.num_finished,
            success_rate_20=round(progress.success_rate(), 3),
            intervention_rate_20=round(progress.intervention_rate(), 3),
            state=() if positions is None else tuple(round(float(value), 4) for value in positions),
        )  # fmt: skip


def _policy_version(rollout: Rollout) -> int:
    """Returns the weights that acted last; -1 where none did."""
    newest, recent = rollout.control.newest, rollout.progress.recent
    if newest is not None and newest.policy_version != NO_POLICY:
        return newest.policy_version
    return recent[-1].policy_version if recent else NO_POLICY


def _source_of(rollout: Rollout) -> str:
    newest = rollout.control.newest
    if newest is None:
        return "held"
    return "person" if newest.source is Source.HUMAN else "policy"
