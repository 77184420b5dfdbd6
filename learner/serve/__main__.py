"""`python -m learner.serve policy:checkpoint --policy.dir=DIR`: any robot with openpi-client can use the policy."""

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from learner.lifetime import answer_quickly, stop_on_signals
from learner.serve.arguments import api_key_of, back_end_of, parse, predicts_deltas, robot_of, served_directory
from learner.serve.endpoint import Endpoint, EndpointConfig, EndpointThread
from learner.serve.recording import Recording
from learner.serve.robots import served_robot
from learner.server.assembly import policy_loader
from learner.server.inference import InferenceService
from learner.server.policy_watcher import PolicyWatcher, warm_up
from learner.server.prometheus import serve_metrics
from learner.server.requests import Policy
from serl_launcher.config import run_main
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.publication import LATEST

logger = logging.getLogger(__name__)

_POLL_S = 0.5


class PolicySource:
    """Brings a policy into inference: once from a checkpoint, or again and again from the publications of a run."""

    def __init__(self, directory: Path, load: Callable[[Path], Policy], inference: InferenceService) -> None:
        """Loads and warms up the policy, so that the port opens only when it answers.

        Raises:
            CheckpointError: There is no usable policy.
        """
        self.policy: Policy | None = None

        def remember(path: Path) -> Policy:
            self.policy = load(path)
            return self.policy

        self._watcher: PolicyWatcher | None = None
        if (directory / LATEST).is_file():
            self._watcher = PolicyWatcher(directory, remember, inference)
            self._watcher.look()
        else:
            started = time.monotonic()
            policy = remember(directory)
            warm_up(policy)
            inference.swap(policy, 0)
            logger.info("Policy of %s is ready after %.1f s.", directory, time.monotonic() - started)
        if self.policy is None or inference.policy_version < 0:
            raise CheckpointError(f"None of the policies in {directory} could be loaded; see the warnings above.")

    @property
    def watcher(self) -> PolicyWatcher | None:
        """Follows the publications, where the directory holds some."""
        return self._watcher


def main() -> int:
    """Serves until a signal asks to stop."""
    arguments = parse(sys.argv[1:])
    stop = stop_on_signals()
    answer_quickly()
    key = api_key_of(arguments)
    host = arguments.host or ("0.0.0.0" if key else "127.0.0.1")
    endpoint_config = EndpointConfig(host=host, port=arguments.port, api_key=key, insecure=arguments.insecure)
    server = ServerConfig(
        device=arguments.device, max_batch=arguments.max_batch, max_wait_ms=arguments.max_wait_ms,
        num_threads=arguments.num_threads,
    )  # fmt: skip
    inference = InferenceService(server)
    load = policy_loader(server, acting=back_end_of(arguments))
    source = PolicySource(served_directory(arguments.directory), load, inference)
    assert source.policy is not None
    robot = served_robot(
        source.policy.spec, robot_of(arguments), default_prompt=arguments.default_prompt,
        delta_actions=_must_undo_deltas(source.policy, arguments),
    )  # fmt: skip
    recording = Recording(arguments.record_dir) if arguments.record else None
    endpoint = Endpoint(endpoint_config, inference, lambda: robot, recording=recording)
    metrics = None
    if arguments.prometheus_port:
        metrics = serve_metrics(
            arguments.prometheus_port, inference=inference, clients=endpoint.figures, host=arguments.prometheus_host
        )
    parts = [part for part in (inference, source.watcher) if part is not None]
    for part in parts:
        part.start()
    thread = EndpointThread(endpoint)
    try:
        thread.start()
        logger.info("Serving %r on ws://%s:%d.", robot.spec.name, host, endpoint.port)
        while not stop.wait(_POLL_S):
            for part in parts:
                part.check()
    finally:
        thread.stop()
        if recording is not None:
            recording.close()
        for part in reversed(parts):
            part.stop()
        if metrics is not None:
            metrics.stop()
    return 0


def _must_undo_deltas(policy: Policy, arguments: argparse.Namespace) -> bool:
    """Returns whether the robot's transforms make actions absolute; a policy with `delta_actions` has done so."""
    return predicts_deltas(arguments) and not getattr(getattr(policy, "config", None), "delta_actions", False)


if __name__ == "__main__":
    run_main(main)
