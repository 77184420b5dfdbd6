"""`python -m robot_infra.serve <overrides>` on the robot's computer; the actor has `environment.name=remote`.

For instance `task=dobot_pnp transport.bind=0.0.0.0 transport.keys_dir=keys transport.request_port=5590
transport.broadcast_port=5591`.
"""

import logging
import signal
import sys
import threading
from contextlib import closing

from robot_infra import envs
from robot_infra.serve.server import RobotServer
from serl_launcher.config.loader import load, run_main

logger = logging.getLogger("robot_infra.serve")


def main() -> None:
    """Serves the configured robot until Ctrl-C."""
    config = load(sys.argv[1:])
    with closing(envs.build(config.environment)) as env:
        server, stop = RobotServer(env, config.transport), threading.Event()
        signal.signal(signal.SIGINT, lambda number, frame: server.stop(stop))
        signal.signal(signal.SIGTERM, lambda number, frame: server.stop(stop))
        logger.info("%s can be driven at %s, port %d.", env.spec.name, config.transport.bind, server.port)
        server.run(stop)


if __name__ == "__main__":
    run_main(main)
