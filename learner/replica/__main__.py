"""`python -m learner.replica ip=<other machine> key=value ...`: keeps the replay of another machine like this one's.

It runs beside the learner that robots are connected to, one process per other machine, with the run's own settings.
The other machine runs `python -m learner.server algo=data_collection` with the same output_dir and unique_identifier on
its own disk; this process is an actor to it, named `actor.id`, whose episodes are those of the run. Either side may be
killed and started again; what was sent is not sent twice. It ends when the run's trainer has finished and the other
machine has everything.
"""

import contextlib
import logging
import sys
import threading

from learner.lifetime import EXIT_STOPPED, log_to_file, stop_on_signals
from learner.replay.reader import ReplayDataset
from learner.replica.stream import ReplayStream
from learner.status_file import StatusFile
from serl_launcher.config import RunConfig, load, run_main
from serl_launcher.run_directory import RunDirectory
from serl_launcher.specs import RobotSpec
from serl_launcher.status import JSON, read_status
from serl_launcher.transport.client import LearnerClient

logger = logging.getLogger(__name__)

_LOOK_S = 0.2
_FLUSH_S = 60.0


def main() -> int:
    """Feeds until the run is over (0) or a signal asks to stop (EXIT_STOPPED)."""
    stop = stop_on_signals()
    config = load(sys.argv[1:])
    run = RunDirectory.of(config)
    name = f"replica-{config.actor.id}"
    log_to_file(run.logs / f"{name}.log")
    dataset = ReplayDataset(run.replay)
    spec = _wait_for_robot(dataset, stop)
    if spec is None:
        return EXIT_STOPPED
    with contextlib.closing(ReplayStream(dataset, spec, run.root / "replicas" / config.actor.id)) as stream:
        client = LearnerClient(config.transport, config.ip, actor_id=config.actor.id, spec=spec, spool=stream)
        status = StatusFile(run.status(name), lambda: _figures(stream, client))
        client.start()
        status.start()
        try:
            return _feed(config, run, stream, client, stop)
        finally:
            status.stop()
            client.close()


def _wait_for_robot(dataset: ReplayDataset, stop: threading.Event) -> RobotSpec | None:
    """Returns the robot of the replay once it has episodes; None where `stop` was set before."""
    logger.info("Waiting for the first episode in %s.", dataset.root)
    while not dataset.num_episodes and not stop.wait(_LOOK_S):
        dataset.refresh()
    return dataset.spec if dataset.num_episodes else None


def _feed(
    config: RunConfig, run: RunDirectory, stream: ReplayStream, client: LearnerClient, stop: threading.Event
) -> int:
    complained = ""
    while not stop.wait(_LOOK_S):
        stream.follow()
        error = "" if client.last_error is None else str(client.last_error)
        if error and error != complained:
            logger.error("The replica on %s does not take episodes: %s", config.ip, error)
        complained = error
        trainer = read_status(run.status("trainer")) or {}
        if trainer.get("phase") == "finished":
            stream.follow()
            if client.flush(_FLUSH_S):
                logger.info("The run is over; %s has all %d episodes.", config.ip, stream.num_delivered_episodes)
                return 0
    return EXIT_STOPPED


def _figures(stream: ReplayStream, client: LearnerClient) -> dict[str, JSON]:
    return {
        "num_delivered_episodes": stream.num_delivered_episodes,
        "num_pending_events": stream.num_pending,
        "is_connected": client.is_connected,
    }


if __name__ == "__main__":
    run_main(main)
