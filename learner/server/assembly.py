"""Puts the learner server together and keeps it together: gateway, inference, sealing, status.

serving --(trainer finished | enough episodes | signal while collecting)--> sending home --> sealing --> ended
|
+--(signal while training: actors stay, for the learner comes back)-----------------> sealing --> ended
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from learner.lifetime import SUPERVISOR_VARIABLE, Worker
from learner.server.frontends import Frontends
from learner.server.gateway import Gateway
from learner.server.inference import InferenceService
from learner.server.ingest import Ingest
from learner.server.policy_watcher import PolicyWatcher
from learner.server.requests import NoInference, Policy
from learner.server.sealing import Sealer, open_writer, warm_up
from learner.status_file import StatusFile
from serl_launcher.config import RunConfig
from serl_launcher.config.training import ServerConfig
from serl_launcher.journal import Journal
from serl_launcher.run_directory import RunDirectory
from serl_launcher.status import JSON, read_status

logger = logging.getLogger(__name__)

FLUSH_GRACE_S = 20.0
"""How long actors may take to deliver once the run is over."""
SEAL_GRACE_S = 60.0
_POLL_S = 0.2


class LearnerServer:
    """One learner server of one run."""

    def __init__(self, config: RunConfig, run: RunDirectory, journal: Journal) -> None:
        """Prepares all parts; `run` starts them. `journal` stays the caller's."""
        self._config = config
        self._directory = run
        self._journal = journal
        self._collects_only = config.algo.name == "data_collection"
        self._ingest = Ingest(journal)
        self._inference = NoInference() if self._collects_only else InferenceService(config.server)
        self._gateway = Gateway(
            config.transport, spec=None, ingest=self._ingest, inference=self._inference, publications=run.policies
        )
        self._watchers = self._build_watchers()
        acting = self._inference if isinstance(self._inference, InferenceService) else None
        self._frontends = Frontends(config.server, acting, self._gateway.snapshot)
        self._serving = Worker("gateway", self._gateway.run)
        self._sealing = Worker("sealing", self._seal)
        self._sealer: Sealer | None = None
        self._status = StatusFile(run.status("server"), self.status)
        self._is_ready = False
        self._started_wall_s = time.time()

    def run(self, stop: threading.Event) -> bool:
        """Serves until the run is over (True) or `stop` is set (False); everything received is sealed by then.

        Raises:
            HiorsError: A part failed; start the process again.
        """
        warm_up()
        self._gateway.bind()
        self._frontends.start()
        self._is_ready = True
        self._status.start()
        for part in self._parts():
            part.start()
        try:
            is_over = self._serve(stop)
            if is_over or self._collects_only:
                self._send_home()
        finally:
            self._end()
        return is_over

    def status(self) -> dict[str, JSON]:
        """Returns what the status file tells; called from another thread."""
        counts = self._journal.counts()
        return {
            "ready": self._is_ready and (self._collects_only or self._inference.policy_version >= 0),
            "num_steps": counts.num_steps,
            "num_episodes": counts.num_episodes,
            "num_sealed_episodes": counts.num_sealed_episodes,
            "num_failing": 0 if self._sealer is None else self._sealer.num_failing,
            "num_orphans": counts.num_orphans,
            **self._gateway.figures(),
            "policy_version": self._inference.policy_version,
            "inference": self._inference.figures(),
            "actors": self._actors(),
        }

    def _actors(self) -> dict[str, dict[str, JSON]]:
        """Returns the figures of each actor, its own and what inference counts of it."""
        misses = self._inference.metrics.deadline_misses if isinstance(self._inference, InferenceService) else {}
        return {
            actor_id: {**figures, "num_deadline_misses": misses.get(actor_id, 0)}
            for actor_id, figures in self._gateway.snapshot().items()
        }

    def _parts(self) -> list[InferenceService | PolicyWatcher | Worker]:
        inference = [self._inference] if isinstance(self._inference, InferenceService) else []
        return [*inference, *self._watchers, self._serving, self._sealing]

    def _build_watchers(self) -> list[PolicyWatcher]:
        if isinstance(self._inference, NoInference):
            return []
        return [PolicyWatcher(self._directory.policies, policy_loader(self._config.server), self._inference)]

    def _serve(self, stop: threading.Event) -> bool:
        while not stop.wait(_POLL_S):
            self._check()
            if self._is_over():
                return True
        return False

    def _check(self) -> None:
        for part in self._parts():
            part.check()

    def _is_over(self) -> bool:
        if self._collects_only:
            wanted = self._config.algo.stop_after_episodes
            return 0 < wanted <= self._journal.counts().num_sealed_episodes
        return self._is_trainer_finished()

    def _is_trainer_finished(self) -> bool:
        status = read_status(self._directory.status("trainer"))
        if status is None or status.get("phase") != "finished":
            return False
        # The supervisor clears the status of an earlier start; without one, only what is newer than us counts.
        told_s = status.get("time")
        is_new = isinstance(told_s, float) and told_s >= self._started_wall_s
        return is_new or SUPERVISOR_VARIABLE in os.environ

    def _send_home(self) -> None:
        """Tells the actors to end and waits until they have delivered, at most FLUSH_GRACE_S."""
        logger.info("The run is over: actors are told to end.")
        self._gateway.announce(stop=True)
        deadline = time.monotonic() + FLUSH_GRACE_S
        while self._connected_actors() and time.monotonic() < deadline:
            self._check()
            time.sleep(_POLL_S)
        left = self._connected_actors()
        if left:
            logger.warning("Actors %s are still connected; what they have not sent stays in their spools.", left)

    def _connected_actors(self) -> list[str]:
        return [actor_id for actor_id, actor in self._gateway.snapshot().items() if actor["is_connected"]]

    def _end(self) -> None:
        self._is_ready = False
        self._frontends.stop()
        for watcher in self._watchers:
            watcher.stop()
        self._serving.stop()
        # The journal is closed after this: what is being sealed must be finished.
        self._sealing.stop(timeout_s=SEAL_GRACE_S)
        if isinstance(self._inference, InferenceService):
            self._inference.stop()
        self._status.stop()
        counts = self._journal.counts()
        num_sealed, num_episodes = counts.num_sealed_episodes, counts.num_episodes
        logger.info("Sealed %d of %d episodes; %d steps.", num_sealed, num_episodes, counts.num_steps)

    def _seal(self, stop: threading.Event) -> None:
        """Seals episodes as they close. The dataset is made when the first actor has told what robot it is."""
        while self._ingest.spec is None:
            if stop.wait(_POLL_S):
                return
        writer = open_writer(self._directory.replay, self._ingest.spec, stop)
        if writer is not None:
            with contextlib.closing(writer):
                self._sealer = Sealer(self._journal, writer)
                self._sealer.run(stop)


def policy_loader(config: ServerConfig, *, acting: Mapping[str, str | bool] | None = None) -> Callable[[Path], Policy]:
    """Returns what loads a published policy onto the configured device; torch is imported with the first one.

    `acting` names settings of `policy.acting` that count instead of the policy's own.
    """

    def load(path: Path) -> Policy:
        import torch  # Slow to import, and not needed to collect data.

        from serl_launcher.policies.any_policy import load_any_policy

        torch.set_num_threads(config.num_threads)
        return load_any_policy(path, device=config.device, acting=acting).eval()

    return load
