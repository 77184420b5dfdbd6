"""`python -m robot_infra.robots.dobot.emulator --settings cell.yaml`: an X-Trainer without metal, until Ctrl-C.

Writes the addresses of everything to the settings file, as overrides for `python -m actor`, one per line.
"""

import argparse
import json
import logging
import signal
import sys
import threading
from pathlib import Path

from robot_infra.robots.dobot.emulator.cell import EmulatedCell

logger = logging.getLogger(__name__)


def overrides(cell: EmulatedCell) -> list[str]:
    """Returns what an actor has to be told to find the cell."""
    lines = [f"environment.options.{key}={_hydra(value)}" for key, value in cell.options().items()]
    return [*lines, f"actor.devices.keyboard={cell.terminal.path}"]


def _hydra(value: object) -> str:
    """Returns a value in Hydra's grammar: like JSON, but keys have no quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_hydra(each) for each in value) + "]"
    return json.dumps(value)


def main(arguments: list[str]) -> None:
    """Runs the cell."""
    parser = argparse.ArgumentParser(prog="python -m robot_infra.robots.dobot.emulator", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="file for the overrides, one per line")
    parser.add_argument("--image_size", type=int, nargs=2, default=(298, 224), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--demonstrates", action="store_true", help="the person drives all the time")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    width, height = chosen.image_size
    cell = EmulatedCell(image_size=(width, height), demonstrates=chosen.demonstrates, seed=chosen.seed)
    chosen.settings.write_text("\n".join(overrides(cell)) + "\n")
    logger.info("The emulated cell runs; overrides for the actor are in %s.", chosen.settings)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    stop.wait()
    cell.close()


if __name__ == "__main__":
    main(sys.argv[1:])
