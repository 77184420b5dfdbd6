"""Where the time of an update goes: methods of live objects are timed, each without what it calls."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch


class Stopwatch:
    """Adds up wall time by part; nested parts do not count twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[tuple[str, float]] = []

    def time(self, owner: Any, method: str, part: str) -> None:
        """Times `owner.method` as `part` from now on. Any: whatever has that method."""
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return inner(*args, **kwargs)
            finally:
                self.leave()

        setattr(owner, method, timed)

    def enter(self, part: str) -> None:
        """Begins a part; the one around it rests meanwhile."""
        now = _now()
        if self._running:
            name, since = self._running[-1]
            self.seconds[name] += now - since
        self._running.append((part, now))

    def leave(self) -> None:
        """Ends the part begun last."""
        now = _now()
        part, since = self._running.pop()
        self.seconds[part] += now - since
        if self._running:
            self._running[-1] = (self._running[-1][0], now)

    def clear(self) -> None:
        """Forgets what was measured."""
        self.seconds.clear()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
