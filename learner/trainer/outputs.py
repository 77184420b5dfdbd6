"""What a trainer writes: published policies, checkpoints, metrics. Only rank 0 has one."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from learner.algorithms.interfaces import Algorithm
from learner.trainer.checkpoints import Checkpoints, TrainerState
from learner.trainer.feed import DataFeed
from learner.trainer.progress import Progress
from learner.trainer.publishing import BackgroundPublisher, Snapshotting
from learner.trainer.serving_figures import serving_figures
from serl_launcher.metrics import MetricSink
from serl_launcher.publication import Publisher

logger = logging.getLogger(__name__)


class Outputs:
    """The files of one training run."""

    def __init__(
        self, publisher: Publisher, checkpoints: Checkpoints, metrics: MetricSink, *, newest_version: int,
        server_status: Path | None = None,
    ) -> None:  # fmt: skip
        """Writes through the three.

        Args:
            publisher: Of policies.
            checkpoints: Where they go.
            metrics: Where rows go.
            newest_version: What is published already, -1 for nothing.
            server_status: Status file of the learner server, whose figures join each row; None: there is none.
        """
        self._server_status = server_status
        self._publisher = publisher
        self._background = BackgroundPublisher(publisher)
        self._checkpoints = checkpoints
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._sealing: Future[Path] | None = None
        self._metrics = metrics
        self.newest_version = newest_version
        self._published_updates = newest_version

    def is_published(self, algorithm: Algorithm) -> bool:
        """Whether the newest published policy is the one of the algorithm's last update."""
        return self._published_updates == algorithm.num_updates

    def publish(self, algorithm: Algorithm) -> int:
        """Publishes the policy under the number of updates; returns the version.

        Where the algorithm can give a snapshot, the files are written beside training: they are there some time after
        this returns, at the latest when `close` does. The first policy is waited for.
        A run that fell back to a checkpoint has fewer updates than it had published; the next free version is taken.

        Raises:
            OSError, CheckpointError: The disk refused this publication, or the one before.
        """
        version = max(algorithm.num_updates, self.newest_version + 1)
        started = time.monotonic()
        if isinstance(algorithm, Snapshotting):
            self._background.publish(algorithm.snapshot_policy, version)
            if self.newest_version < 0:
                self._background.wait()
        else:
            self._publisher.publish(algorithm.save_policy, version)
        self.newest_version, self._published_updates = version, algorithm.num_updates
        logger.debug("Publishing policy %d took training %.0f ms.", version, 1e3 * (time.monotonic() - started))
        return version

    def checkpoint(self, algorithm: Algorithm, feed: DataFeed, progress: Progress) -> None:
        """Writes all that the next update depends on; it is forced to disk and named beside training.

        Raises:
            OSError, CheckpointError: The disk refused this checkpoint, or the one before.
        """
        tensors, scalars = algorithm.state()
        state = TrainerState(
            tensors=tensors,
            algorithm=scalars,
            mixture=feed.mixture_state,
            seconds_trained=progress.seconds_trained,
            counters=progress.counters(),
        )
        started = time.monotonic()
        self.finish_checkpoint()
        written = self._checkpoints.write(algorithm.num_updates, algorithm.save_policy, state)
        self._sealing = self._sealer.submit(self._checkpoints.seal, written)
        took_ms = 1e3 * (time.monotonic() - started)
        logger.debug("Checkpoint %d took training %.0f ms.", algorithm.num_updates, took_ms)

    def finish_checkpoint(self) -> Path | None:
        """Returns the last checkpoint of this process once the disk has it; None where it has written none.

        Raises:
            OSError, CheckpointError: The disk refused it.
        """
        return None if self._sealing is None else self._sealing.result()

    def log(self, metrics: Mapping[str, float], *, num_updates: int) -> None:
        """Writes one row of metrics."""
        self._metrics.write(metrics, step=num_updates)

    def server_figures(self) -> dict[str, float]:
        """Returns what the learner server last told of serving, named `server/...` and `actor/<id>/...`."""
        return {} if self._server_status is None else serving_figures(self._server_status)

    def close(self) -> None:
        """Ends publications and checkpoints, which are then on disk, and the metrics.

        Raises:
            OSError, CheckpointError: The disk refused the last of them.
        """
        with closing(self._metrics), self._sealer:
            self._background.close()
            self.finish_checkpoint()
