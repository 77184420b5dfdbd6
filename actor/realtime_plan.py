"""Chunks for robots whose time does not wait: the next is asked for while this one runs.

    tick      0    1    2    3    4    5    6    7    8    9
    asked     A                   B                   C          every `execution_horizon` ticks, from what is seen then
    arrives             A                   B
    executed  -    -    a2   a3   a4   a5   b2   b3   b4   b5    an action belongs to the tick it was meant for

An answer is late by some ticks; its first actions are past, and are skipped. The rest of the old chunk goes on until
then, so that the robot never waits while a chunk is longer than latency and execution horizon together. Where the
answer could come too late, the question is asked earlier, and before the last one is answered. So it is where an answer
takes longer than any before: it may be lost. When a chunk runs out all the same, the robot holds still, and the next
chunk begins with its first action.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from actor.latency import LatencyEstimate
from actor.plan import MAX_NOTED, ChunkNote, ChunkPolicy, Planned, check_finite
from serl_launcher.types import ActionChunk, Observation, Unfinished

SWITCH, ENSEMBLE, RTC = "switch", "ensemble", "rtc"
CHUNKINGS = (SWITCH, ENSEMBLE, RTC)
_MARGIN_TICKS = 2
"""An answer may take so much longer than any before without a robot standing still."""


@dataclass(kw_only=True, slots=True)
class Answer:
    """A chunk and the tick whose observation it answers."""

    tick: int
    chunk: ActionChunk


class AsyncPolicy(ChunkPolicy, Protocol):
    """A policy that can be asked without waiting; `actor.policy_client.RemotePolicy` is one."""

    def ask(
        self, observation: Observation, *, tick: int, unfinished: Unfinished | None, timeout_s: float = math.inf
    ) -> bool:
        """Asks without waiting; returns whether it asked. It does not while a refusal is fresh.

        After `timeout_s` seconds the answer is of no use any more.
        """
        ...

    def answers(self) -> list[Answer]:
        """Returns what has arrived, oldest first; failures are only counted."""
        ...

    @property
    def num_under_way(self) -> int:
        """Questions without an answer yet."""
        ...


@dataclass(kw_only=True, slots=True)
class _Active:
    """A chunk in use: its action i is for tick `start + i`."""

    asked: int
    """Tick of its observation; `start` is later where the robot has stood still since."""
    start: int
    chunk: ActionChunk

    def at(self, tick: int) -> np.ndarray | None:
        index = tick - self.start
        return self.chunk.actions[index] if 0 <= index < len(self.chunk.actions) else None


@dataclass(kw_only=True, slots=True)
class RealTimePlan:
    """Plans ahead of time; see the top of the file."""

    policy: AsyncPolicy
    execution_horizon: int
    """Ticks between two questions."""
    latency: LatencyEstimate
    chunking: str = SWITCH
    """`switch`: the newest chunk counts. `ensemble`: all that know the tick are averaged (ACT, arXiv:2304.13705).
    `rtc`: the policy is told what is still planned, and continues it (arXiv:2506.07339); then as `switch`."""
    max_under_way: int = 2
    """Questions that may be open at a time, and as many again where they are overdue. `rtc` uses more than one only
    where the robot would stand still otherwise, because each answer continues the one before: standing still is worse
    than a seam."""
    ensemble_decay: float = 0.01
    """`ensemble`: weights fall as exp(-decay * i), i = 0 for the oldest chunk."""
    num_held: int = 0
    """Ticks without an action, since the start."""
    num_taken: int = 0
    """Ticks with one."""
    notes: deque[ChunkNote] = field(default_factory=lambda: deque(maxlen=MAX_NOTED))
    """Chunks of this episode."""
    _tick: int = -1
    _asked_at: int | None = None
    _held_before: dict[int, int] = field(default_factory=dict)
    """Tick of a question to the value of `num_held` then."""
    _active: list[_Active] = field(default_factory=list)

    def begin(self, observation: Observation) -> None:
        """Waits for the first chunk; the robot stands, so it begins with its first action."""
        self.drop()
        self.notes.clear()
        self._tick = -1
        chunk = self.policy.chunk_for(observation)
        if chunk is not None:
            # How long it took says nothing: perhaps a policy had to be loaded first.
            check_finite(chunk)
            self._take_over(0, chunk, asked=0)
        self._asked_at = 0

    def look(self) -> Planned | None:
        """Begins the next tick: takes over what has arrived, returns what is planned."""
        self._tick += 1
        for answer in self.policy.answers():
            self._note_latency(answer.chunk)
            if not self._active or answer.tick > self._active[-1].asked:
                # Ticks at which the robot stood still are no part of the chunk's time.
                num_held = self.num_held - self._held_before.get(answer.tick, self.num_held)
                self._held_before = {tick: num for tick, num in self._held_before.items() if tick > answer.tick}
                self._take_over(answer.tick + num_held, answer.chunk, asked=answer.tick)
        return self._planned()

    def take(self, observation: Observation) -> Planned | None:
        """Asks where a question is due; returns the action of this tick without ever waiting."""
        if self._is_due() and self.policy.ask(
            observation, tick=self._tick, unfinished=self._unfinished(), timeout_s=self._timeout_s()
        ):
            self._asked_at = self._tick
            self._held_before[self._tick] = self.num_held
        planned = self._planned()
        if planned is None:
            self.num_held += 1
        else:
            self.num_taken += 1
        return planned

    def drop(self) -> None:
        """Forgets chunks and questions; the next tick asks anew."""
        self._active.clear()
        self._held_before.clear()
        self._asked_at = None
        self.policy.forget()

    def figures(self) -> dict[str, float]:
        """Returns what a person and the learner want to know about it."""
        return {"num_held_ticks": self.num_held, "latency_ticks": self.latency.ticks, **self.latency.figures()}

    def _is_due(self) -> bool:
        num_open = self.policy.num_under_way
        if num_open and self._is_overdue():
            return num_open < 2 * self.max_under_way
        if num_open >= self.max_under_way:
            return False
        if self._asked_at is None or not self._active:
            return self.chunking != RTC or num_open == 0
        age = self._tick - self._asked_at
        if self.chunking == RTC and num_open:
            return self._is_urgent(age)
        return age >= self.execution_horizon or self._is_urgent(age)

    def _is_overdue(self) -> bool:
        """Whether the newest question waits longer than any was answered: its answer may never come."""
        if self._asked_at is None or not self.latency.num_answers:
            return False
        limit = self._horizon if self._active else max(self.latency.ticks + 1, self.execution_horizon)
        return self._tick - self._asked_at > self.latency.longest_ticks_below(limit)

    def _is_urgent(self, age: int) -> bool:
        """Whether the chunk that was asked for `age` ticks ago could end before the answer to a question asked now."""
        longest = self.latency.longest_ticks_below(self._horizon - _MARGIN_TICKS)
        longest = max(longest, age + 1 if self.policy.num_under_way else 1) + _MARGIN_TICKS
        return longest < self._horizon <= age + longest  # A chunk that is over before it arrives helps nobody.

    @property
    def _horizon(self) -> int:
        return len(self._active[-1].chunk.actions)

    def _timeout_s(self) -> float:
        """Returns how long an answer is of use: a robot that stands still goes on with any, however late."""
        return self._horizon * self.latency.tick_s if self._active else math.inf

    def _unfinished(self) -> Unfinished | None:
        if self.chunking != RTC or not self._active:
            return None
        newest = self._active[-1]
        rest = newest.chunk.actions[self._tick - newest.start :]
        # The new chunk must be free to differ in the part of the old one that will not be executed.
        most = max(1, min(self._horizon - self.execution_horizon, len(rest)))
        delay_ticks = min(self.latency.ticks_below(self._horizon), most)
        return Unfinished(actions=rest, delay_ticks=delay_ticks) if len(rest) else None

    def _note_latency(self, chunk: ActionChunk) -> None:
        check_finite(chunk)
        if "round_trip" in chunk.timings_ms:
            self.latency.note(1e-3 * chunk.timings_ms["round_trip"])

    def _take_over(self, start: int, chunk: ActionChunk, *, asked: int) -> None:
        tick = max(self._tick, 0)
        old = self._mixed(tick)
        self._active = [*self._active, _Active(asked=asked, start=start, chunk=chunk)]
        if self.chunking != ENSEMBLE:
            self._active = self._active[-1:]
        new = self._mixed(tick)
        difference = None if old is None or new is None else new - old
        jump = float("nan") if difference is None else float(np.abs(difference).max())
        note = ChunkNote(
            tick=asked, delay_ticks=tick - asked, jump=jump, timings_ms=dict(chunk.timings_ms), difference=difference
        )
        self.notes.append(note)

    def _planned(self) -> Planned | None:
        self._active = [each for each in self._active if each.start + len(each.chunk.actions) > self._tick]
        action = self._mixed(self._tick)
        if action is None:
            return None
        newest = self._active[-1]
        return Planned(
            action=action, policy_version=newest.chunk.policy_version, index=max(0, self._tick - newest.start)
        )

    def _mixed(self, tick: int) -> np.ndarray | None:
        actions = [action for each in self._active if (action := each.at(tick)) is not None]
        if not actions:
            return None
        if len(actions) == 1:
            return actions[0]
        weights = np.exp(-self.ensemble_decay * np.arange(len(actions)))
        return np.average(actions, axis=0, weights=weights).astype(np.float32)
