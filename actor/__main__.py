"""`python -m actor [online|collect|eval] <overrides>`: one robot, one simulator, or the evaluation of a checkpoint.

The first word says the same as `actor.mode=...`.
"""

import signal
import sys
from types import FrameType

from actor import abilities, build
from actor.clearance import Clearance
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
        stop_on_signals(actor.clearance)
        actor.run()


def evaluate(config: RunConfig) -> None:
    """Evaluates a checkpoint in this process; this is the only mode of the default actor that imports torch."""
    from actor.evaluate import evaluate as evaluate_checkpoint

    evaluate_checkpoint(config)


def stop_on_signals(clearance: Clearance) -> None:
    """Turns SIGINT and SIGTERM into a request to stop; a second one has its usual effect."""

    def stop(number: int, frame: FrameType | None) -> None:
        clearance.request_stop()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    run_main(main)
