"""`python -m actor [online|collect|eval] <overrides>`: one robot, one simulator, or the evaluation of a checkpoint.

The first word says the same as `actor.mode=...`.
"""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from actor import abilities, build
from serl_launcher.allocator import keep_freed_memory
from serl_launcher.config.actor import MODES
from serl_launcher.config.loader import load, run_main
from serl_launcher.config.root import RunConfig


def main() -> None:
    """Runs the actor that the command line describes."""
    config = load(with_mode(sys.argv[1:]))
    abilities.tell(config)
    if config.actor.mode == "eval":
        evaluate(config)
    else:
        record(config)


def with_mode(arguments: list[str]) -> list[str]:
    """Returns the overrides, with a mode as first word, such as `eval`, written out."""
    if arguments[:1] and arguments[0] in MODES:
        return [*arguments[1:], f"actor.mode={arguments[0]}"]
    return arguments


def record(config: RunConfig) -> None:
    """Plays and records episodes; the first Ctrl-C ends the actor in order, the second at once."""
    keep_freed_memory()
    with build.opened(config) as actor:
        stop_on_signals(actor.clearance.request_stop)
        actor.run()


def evaluate(config: RunConfig) -> None:
    """Evaluates a checkpoint in this process; the first Ctrl-C ends it with a report of what was done.

    This is the only mode of the default actor that imports torch.
    """
    from actor.evaluate import evaluate as evaluate_checkpoint

    stop = threading.Event()
    stop_on_signals(stop.set)
    evaluate_checkpoint(config, is_stopping=stop.is_set)


def stop_on_signals(request_stop: Callable[[], None]) -> None:
    """Turns SIGINT and SIGTERM into a request to stop; a second one has its usual effect."""

    def stop(number: int, frame: FrameType | None) -> None:
        request_stop()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    run_main(main)
