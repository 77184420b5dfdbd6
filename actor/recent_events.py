"""The newest events of a spool, in memory as well: what is sent at once need not be read back from the disk."""

MAX_BYTES = 32 * 1024**2


class RecentEvents:
    """Encoded events by sequence number, without gaps, the newest `MAX_BYTES` of them. Used under the spool's lock."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._events: dict[int, bytes] = {}
        self._num_bytes = 0

    def add(self, seq: int, encoded: bytes) -> None:
        """Keeps the next event, and lets go of the oldest ones beyond the limit."""
        self._events[seq] = encoded
        self._num_bytes += len(encoded)
        while self._num_bytes > self._max_bytes:
            self._forget_oldest()

    def forget(self, up_to_seq: int) -> None:
        """Lets go of the events up to that one."""
        while self._events and next(iter(self._events)) <= up_to_seq:
            self._forget_oldest()

    def after(self, seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Returns (sequence, event) after `seq` in order, at least one where it is here; empty where it is not."""
        found: list[tuple[int, bytes]] = []
        num_bytes = 0
        for number in range(seq + 1, seq + 1 + max_events):
            encoded = self._events.get(number)
            if encoded is None:
                break
            num_bytes += len(encoded)
            if found and num_bytes > max_bytes:
                break
            found.append((number, encoded))
        return found

    def _forget_oldest(self) -> None:
        self._num_bytes -= len(self._events.pop(next(iter(self._events))))
