"""Says something to a robot again and again, from a thread of its own, until it is heard."""

import logging
import threading
from collections.abc import Callable

from serl_launcher.errors import HiorsError

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
            say: Says it once, in a thread of its own; raises HiorsError where it was not heard.
        """
        self._what, self._say = what, say
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begins to say it, where it is not being said already; returns at once."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._ending.clear()
            self._thread = threading.Thread(target=self._run, name=self._what, daemon=True)
            self._thread.start()

    def end(self, *, patience_s: float = 0.0) -> None:
        """Stops saying it, after waiting for so long that it is heard."""
        thread = self._thread
        if thread is None:
            return
        thread.join(patience_s)
        self._ending.set()
        thread.join(2 * RETRY_S)

    def _run(self) -> None:
        complaint = ""
        while not self._ending.is_set():
            try:
                self._say()
            except HiorsError as exc:
                if str(exc) != complaint:
                    complaint = str(exc)
                    logger.error("%s was not heard, it is said again: %s", self._what.capitalize(), exc)
                self._ending.wait(RETRY_S)
            else:
                logger.warning("%s was heard.", self._what.capitalize())
                return
