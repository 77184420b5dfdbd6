"""What every actor should know now: the newest policy, and whether to pause or to end."""

import time
from collections.abc import Callable

from learner.server.publications import Publications
from serl_launcher.transport.messages import Announcement

_REFRESH_S = 0.1


class Announcer:
    """Says what to announce and when: at once after a change, and again at each heartbeat."""

    def __init__(
        self, publications: Publications, *, heartbeat_s: float, is_storage_broken: Callable[[], bool]
    ) -> None:
        self._publications = publications
        self._heartbeat_s = heartbeat_s
        self._is_storage_broken = is_storage_broken
        self._is_paused = False
        self._is_stopping = False
        self._last: Announcement | None = None
        self._refreshed_s = float("-inf")

    def set(self, *, paused: bool | None, stop: bool | None) -> None:
        """Changes what is announced from now on; None leaves it. May be called from any thread."""
        self._is_paused = self._is_paused if paused is None else paused
        self._is_stopping = self._is_stopping if stop is None else stop

    def current(self) -> Announcement:
        """Returns what holds now."""
        newest = self._publications.newest
        return Announcement(
            policy_version=-1 if newest is None else newest.version,
            policy_digest="" if newest is None else newest.digest,
            paused=self._is_paused or self._is_storage_broken(),
            stop=self._is_stopping,
            time=time.time(),
        )

    def due(self) -> Announcement | None:
        """Returns what is to be broadcast now, None where nothing is."""
        now_s = time.monotonic()
        if now_s - self._refreshed_s >= _REFRESH_S:
            self._refreshed_s = now_s
            self._publications.refresh()
        current = self.current()
        is_news = self._last is None or _facts(current) != _facts(self._last)
        if not is_news and self._last is not None and 0 <= current.time - self._last.time < self._heartbeat_s:
            return None
        self._last = current
        return current


def _facts(announcement: Announcement) -> tuple[int, str, bool, bool]:
    return (announcement.policy_version, announcement.policy_digest, announcement.paused, announcement.stop)
