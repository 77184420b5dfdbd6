"""What goes wrong, to whom, for how long; everything that lasts is lifted again."""

import heapq
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.processes import ActorProcess, Learner, limit_disk, send_signal

Lift = Callable[[], None]

CLOCK_JUMPS_S = (-86400.0, -3600.0, -5.0, 5.0, 3600.0, 86400.0)


@dataclass(order=True)
class _Pending:
    due_s: float
    number: int
    lift: Lift = field(compare=False)


@dataclass(kw_only=True)
class Faults:
    """Draws faults one after the other; lasting ones overlap, and end with the first lift of their kind and target."""

    learner: Learner
    actors: list[ActorProcess]
    draw: random.Random
    kinds: Sequence[str]
    """Some of KINDS_WITH_TRAINER."""
    counts: Counter[str] = field(default_factory=Counter)
    _order: list[str] = field(default_factory=list)
    _pending: list[_Pending] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def inject(self) -> str:
        """Lets something go wrong; returns what."""
        if not self._order:
            # Each kind once in random order, then anew: a short run has every kind too.
            self._order = self.draw.sample(self.kinds, len(self.kinds))
        kind = self._order.pop()
        _KINDS[kind](self)
        self.counts[kind] += 1
        return kind

    def lift_due(self) -> None:
        """Ends the faults whose time is over."""
        while self._pending and self._pending[0].due_s <= time.monotonic():
            heapq.heappop(self._pending).lift()

    def lift_all(self) -> None:
        """Ends every fault."""
        while self._pending:
            heapq.heappop(self._pending).lift()

    def _later(self, shortest_s: float, longest_s: float, lift: Lift) -> None:
        due_s = time.monotonic() + self.draw.uniform(shortest_s, longest_s)
        heapq.heappush(self._pending, _Pending(due_s, next(self._numbers), lift))

    def _kill_actor(self) -> None:
        self.draw.choice(self.actors).kill()

    def _kill_server(self) -> None:
        pid = self.learner.server_pid
        if pid is not None:
            send_signal(pid, signal.SIGKILL)

    def _move_learner(self) -> None:
        self.learner.move()
        for actor in self.actors:
            actor.proxy.move()
            actor.write_address()

    def _kill_trainer(self) -> None:
        pid = self.learner.trainer_pid
        if pid is not None:
            send_signal(pid, signal.SIGKILL)

    def _pause_actor(self) -> None:
        self._pause(self.draw.choice(self.actors).pid)

    def _pause_server(self) -> None:
        pid = self.learner.server_pid
        if pid is not None:
            self._pause(pid)

    def _pause(self, pid: int) -> None:
        send_signal(pid, signal.SIGSTOP)
        self._later(0.3, 4.0, lambda: send_signal(pid, signal.SIGCONT))

    def _cut(self) -> None:
        for actor in self.draw.sample(self.actors, self.draw.randint(1, len(self.actors))):
            actor.proxy.cut()

    def _delay(self) -> None:
        proxy = self.draw.choice(self.actors).proxy
        proxy.delay(self.draw.uniform(0.05, 1.0))
        self._later(1.0, 4.0, lambda: proxy.delay(0.0))

    def _stall(self) -> None:
        proxy = self.draw.choice(self.actors).proxy
        proxy.stall(is_stalled=True)
        self._later(0.5, 5.0, lambda: proxy.stall(is_stalled=False))

    def _half_open(self) -> None:
        proxy = self.draw.choice(self.actors).proxy
        proxy.half_open(is_half_open=True)
        self._later(0.5, 5.0, lambda: proxy.half_open(is_half_open=False))

    def _fill_disk_of_actor(self) -> None:
        self._fill_disk(self.draw.choice(self.actors).pid)

    def _fill_disk_of_learner(self) -> None:
        pid = self.learner.server_pid
        if pid is not None:
            self._fill_disk(pid)

    def _fill_disk(self, pid: int) -> None:
        limit_disk(pid, is_full=True)
        self._later(0.5, 4.0, lambda: limit_disk(pid, is_full=False))

    def _jump_clock_of_actor(self) -> None:
        self.draw.choice(self.actors).clock.jump(self.draw.choice(CLOCK_JUMPS_S))

    def _jump_clock_of_learner(self) -> None:
        self.learner.clock.jump(self.draw.choice(CLOCK_JUMPS_S))


_KINDS: dict[str, Callable[[Faults], None]] = {
    "SIGKILL actor": Faults._kill_actor,
    "SIGKILL server": Faults._kill_server,
    "SIGKILL trainer": Faults._kill_trainer,
    "SIGKILL learner, restart at a new address": Faults._move_learner,
    "SIGSTOP actor": Faults._pause_actor,
    "SIGSTOP server": Faults._pause_server,
    "connections cut": Faults._cut,
    "connections delayed": Faults._delay,
    "connections stalled": Faults._stall,
    "connections half-open": Faults._half_open,
    "full disk of an actor": Faults._fill_disk_of_actor,
    "full disk of the learner": Faults._fill_disk_of_learner,
    "clock of an actor jumps": Faults._jump_clock_of_actor,
    "clock of the learner jumps": Faults._jump_clock_of_learner,
}
KINDS_WITH_TRAINER = tuple(_KINDS)
KINDS = tuple(kind for kind in _KINDS if kind != "SIGKILL trainer")
