"""Says something to a robot again and again, from a thread of its own, until it is heard."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

RETRY_S = 0.2


class Insistence:
    """What must reach a robot even where its line is busy or broken, while whoever says so goes on at once.

    silent -- begin --> saying -- it was heard, or end --> silent
    """

    def __init__(self, what: str, say: Callable[[], object]) -> None:
        """Says nothing yet.

        Args:
            what: How messages call it, e.g. `the emergency stop of the left arm`.
            say: Says it once, in a thread of its own; raises where it was not heard.
        """
        self._what, self._say = what, say
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._num_wishes = 0
        """Beginnings so far: what was heard answers those before it was said, not those since."""
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begins to say it, or to say it once more where it is being said; returns at once."""
        with self._lock:
            self._num_wishes += 1
            if self._thread is not None:
                return
            self._ending = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._ending,), name=self._what, daemon=True)
            self._thread.start()

    def end(self, *, patience_s: float = 0.0) -> None:
        """Stops saying it, after waiting for so long that it is heard."""
        thread = self._thread
        if thread is None:
            return
        thread.join(patience_s)
        with self._lock:
            if self._thread is thread:  # Else it was heard, and perhaps begun anew since.
                self._ending.set()
                self._thread = None
        thread.join(2 * RETRY_S)

    def _run(self, ending: threading.Event) -> None:
        complaint = ""
        while not ending.is_set():
            wish = self._num_wishes
            try:
                self._say()
            except Exception as exc:  # Whatever keeps it from being heard, it is said again.
                if str(exc) != complaint:
                    complaint = str(exc)
                    logger.error("%s was not heard, it is said again: %s", self._what.capitalize(), exc)
                ending.wait(RETRY_S)
            else:
                logger.warning("%s was heard.", self._what.capitalize())
                with self._lock:
                    if ending.is_set():
                        return
                    if wish == self._num_wishes:
                        self._thread = None
                        return
