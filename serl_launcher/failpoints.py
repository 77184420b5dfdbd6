"""Places at which a process can be made to die, so that tests see what a crash there leaves behind.

HIORS_FAIL_AT="sealed" python -m learner.server ...     dies by SIGKILL the first time that it gets there
HIORS_FAIL_AT="sealed:3" ...                            the third time

Without the variable each place costs one comparison.
"""

import os
import signal

from serl_launcher.errors import ConfigError

VARIABLE = "HIORS_FAIL_AT"

SPOOL = ("spool appended", "spool synced", "spool acknowledged")
COMMIT = ("admitted", "commit written", "committed")
SEAL = (
    "seal final", "seal steps", "seal robot", "seal tasks", "seal episode", "seal statistics", "seal info", "sealed",
    "seal marked",
)  # fmt: skip
LABEL = ("seal relabel_steps", "seal relabel_episode", "labelled", "label marked")
PUBLISH = ("publication written", "publication renamed", "publication named")
CHECKPOINT = ("checkpoint written", "checkpoint aside", "checkpoint renamed")
PLACES = (*SPOOL, *COMMIT, *SEAL, *LABEL, *PUBLISH, *CHECKPOINT)

_place = ""
_num_left = 0


def arm(wanted: str) -> None:
    """Has this process die at a place, `<place>` or `<place>:<how many times until then>`; empty disarms.

    Raises:
        ConfigError: There is no such place.
    """
    global _place, _num_left
    place, _, count = wanted.partition(":")
    if place and place not in PLACES:
        raise ConfigError(f"Expected {VARIABLE} to be one of {', '.join(PLACES)}, got {place!r}.")
    _place, _num_left = place, int(count or 1)


def reached(place: str) -> None:
    """Dies by SIGKILL, as nothing can be cleaned up after a crash, where a test asked for it; else does nothing."""
    global _num_left
    if place != _place:
        return
    _num_left -= 1
    if _num_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE, ""))
