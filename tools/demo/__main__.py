"""`python -m tools.demo`: the main job from nothing to a report. Started again, it goes on where it was."""

import logging
import signal
import sys
from types import FrameType

from serl_launcher.config import run_main
from tools.demo.display import Display
from tools.demo.phases import Demo
from tools.demo.settings import parse
from tools.demo.state import DemoState
from tools.report import build, closing_lines

logger = logging.getLogger(__name__)


def main() -> int:
    """Runs the phases and the report; returns the exit status."""
    config = parse(sys.argv[1:])
    if DemoState.is_beyond(config.output, config.identity()):
        logger.warning("%s has more than %g s online already; nothing to do.", config.output, config.online_seconds)
        return 0
    state = DemoState.open(config.output, config.identity())
    signal.signal(signal.SIGTERM, _interrupt)
    display = Display()
    try:
        with display:
            Demo(config, state, display).run()
    except KeyboardInterrupt:
        display.tell("Stopped in good order. The same command goes on where this one was.")
        raise
    build(config.output)
    for line in closing_lines(config.output):
        display.tell(line)
    return 0


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_main(main)
