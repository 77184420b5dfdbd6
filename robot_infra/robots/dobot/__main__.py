"""For the person beside an X-Trainer: `python -m robot_infra.robots.dobot status|stop|clear <host> [--by NAME]`.

`status` says what an arm does, `stop` presses its emergency stop, `clear` takes the stop back and clears the alarm.
Neither actor nor driver ever clears an alarm by itself.
"""

import argparse
import logging
import sys

from robot_infra.robots.dobot.dashboard import Dashboard
from robot_infra.robots.dobot.feedback import RobotMode
from serl_launcher.config.loader import run_main
from serl_launcher.errors import ConfigError

logger = logging.getLogger("robot_infra.robots.dobot")


def main() -> None:
    """Runs one command."""
    parser = argparse.ArgumentParser(prog="python -m robot_infra.robots.dobot", description=__doc__)
    parser.add_argument("command", choices=("status", "stop", "clear"))
    parser.add_argument("host", help="address of the arm's controller")
    parser.add_argument("--port", type=int, default=29999)
    parser.add_argument("--by", default="", help="your name, for clear")
    chosen = parser.parse_args(sys.argv[1:])
    if chosen.command == "clear" and not chosen.by.strip():
        raise ConfigError("Only a person clears an alarm: say who you are with --by NAME, after removing its cause.")
    dashboard = Dashboard(chosen.host, chosen.port)
    if chosen.command == "stop":
        dashboard.ask("EmergencyStop(1)")
    elif chosen.command == "clear":
        dashboard.ask("EmergencyStop(0)")
        dashboard.ask("ClearError()")
        logger.warning("%s: alarm cleared by %s.", chosen.host, chosen.by)
    mode = RobotMode(int(dashboard.ask("RobotMode()")[0]))
    sys.stdout.write(f"{chosen.host}: {mode.name.lower()}\n")
    dashboard.close()


if __name__ == "__main__":
    run_main(main)
