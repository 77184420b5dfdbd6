"""The training loop. It knows no algorithm by name.

    waiting  <->  training  ->  finished
       |             |
       +-- a signal -+-->  checkpoint, end; the next start continues

An update that is not finite is skipped; after several in a row training goes back to the last checkpoint (`guard`).
Waiting: not enough accepted steps yet, or an update would exceed `algo.update_to_data`.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from learner.algorithms.interfaces import Algorithm
from learner.trainer.feed import DataFeed
from learner.trainer.guard import Guard, NotFinite
from learner.trainer.limiter import may_update, update_to_data
from learner.trainer.outputs import Outputs
from learner.trainer.progress import FINISHED, TRAINING, WAITING, Progress, seconds_left
from learner.trainer.ranks import Ranks, Verdict
from learner.trainer.schedule import is_restart_due
from serl_launcher.config import RunConfig
from serl_launcher.status import JSON

logger = logging.getLogger(__name__)

_WAIT_S = 0.2


class Trainer:
    """Samples, updates, publishes, checkpoints, logs."""

    def __init__(
        self, config: RunConfig, algorithm: Algorithm, *, feed: DataFeed, ranks: Ranks, outputs: Outputs | None,
        progress: Progress, go_back: Callable[[], None],
    ) -> None:  # fmt: skip
        """Trains `algorithm` on what `feed` draws.

        Args:
            config: Of the run.
            algorithm: At its first update, or where a checkpoint left it.
            feed: Not started yet.
            ranks: The processes that train together.
            outputs: None on every rank but the first.
            progress: Counters, from a checkpoint where there is one.
            go_back: Puts the algorithm back to the last checkpoint.
        """
        self._go_back = go_back
        self._guard = Guard(config.training)
        self._config = config
        self._algorithm = algorithm
        self._feed = feed
        self._ranks = ranks
        self._outputs = outputs
        self.progress = progress
        self._accepted_at = algorithm.num_updates
        """Number of updates at the last one that was finite."""

    def run(self, stop: threading.Event) -> bool:
        """Trains until the run is finished (True) or `stop` is set (False); both end with a checkpoint.

        Raises:
            HiorsError: A dataset is damaged, the loss is not finite, the disk refuses.
        """
        self._feed.start()
        try:
            self._publish_start()
            verdict = self._train(stop)
            if verdict == Verdict.FINISH:
                self._publish_last()
            self._checkpoint_last()
        finally:
            self._feed.stop()
            if self._outputs is not None:
                self._outputs.close()
        if verdict == Verdict.FINISH:
            self.progress.phase = FINISHED
        return verdict == Verdict.FINISH

    def step(self) -> None:
        """Makes one update and what is due after it."""
        try:
            metrics = self._algorithm.update(self._feed.next())
        except NotFinite as failure:
            if self._guard.is_rollback_due(failure, self._algorithm.num_updates):
                self._go_back_together()
            return
        self._guard.accept()
        self.progress.loss = metrics["loss"]
        if self._is_due(self._config.training.held_out_period):
            self._measure()
        if self._is_due(self._config.algo.publish_every) and self._outputs is not None:
            self._publish(self._outputs)
        if self._is_due(self._config.training.checkpoint_period):
            self._checkpoint()
        if self._is_due(self._config.logging.log_period) and self._outputs is not None:
            row = {**self._row(metrics), **self._outputs.server_figures()}
            self._outputs.log(row, num_updates=self._algorithm.num_updates)
        self._accepted_at = self._algorithm.num_updates

    def status(self) -> dict[str, JSON]:
        """Returns what the status file tells; called from another thread."""
        progress, counts, algo = self.progress, self._feed.counts, self._config.algo
        num_updates = self._algorithm.num_updates
        left = seconds_left(progress, num_updates, max_updates=algo.max_updates, max_seconds=algo.max_seconds)
        return {
            "phase": progress.phase,
            "updates": num_updates,
            "loss": progress.loss,
            "updates_per_s": round(progress.updates_per_s, 3),
            "policy_version": progress.policy_version,
            "replay_steps": counts.num_steps,
            "replay_episodes": counts.num_episodes,
            "accepted_steps": counts.num_accepted_steps,
            "accepted_episodes": counts.num_accepted_episodes,
            "update_to_data": round(update_to_data(num_updates, counts.num_steps), 4),
            "skipped_updates": self._guard.num_skipped,
            "held_out_loss": progress.held_out_loss,
            "seconds_trained": round(progress.seconds_trained, 2),
            "seconds_left": None if left is None else round(left, 1),
        }

    def _train(self, stop: threading.Event) -> Verdict:
        while True:
            verdict = self._ranks.agree(self._verdict(stop))
            if verdict in (Verdict.STOP, Verdict.FINISH):
                return verdict
            if verdict == Verdict.WAIT:
                self._enter(WAITING)
                stop.wait(_WAIT_S)
                continue
            if verdict == Verdict.RESTART_SCHEDULE:
                self._algorithm.restart_schedule()
                self.progress.episodes_at_restart = self._feed.counts.num_accepted_episodes
                continue
            self._enter(TRAINING)
            started = time.monotonic()
            self.step()
            self.progress.count_update(time.monotonic() - started)

    def _verdict(self, stop: threading.Event) -> Verdict:
        algo, num_updates = self._config.algo, self._algorithm.num_updates
        if stop.is_set():
            return Verdict.STOP
        is_out_of_time = 0 < algo.max_seconds <= self.progress.seconds_trained
        if num_updates >= algo.max_updates or is_out_of_time:
            return Verdict.FINISH
        self._feed.check()
        counts = self._feed.counts
        if is_restart_due(counts.num_accepted_episodes, self.progress.episodes_at_restart, algo.optimizer):
            return Verdict.RESTART_SCHEDULE
        has_enough = self._feed.has_batches and counts.num_accepted_steps >= self._algorithm.num_steps_to_start
        if has_enough and may_update(num_updates, counts.num_steps, algo):
            return Verdict.UPDATE
        return Verdict.WAIT

    def _is_due(self, period: int) -> bool:
        """Returns whether a multiple of `period` came since the last finite update: skipped ones skip no work."""
        return self._algorithm.num_updates // period > self._accepted_at // period

    def _enter(self, phase: str) -> None:
        if phase == self.progress.phase:
            return
        self.progress.phase = phase
        counts = self._feed.counts
        logger.debug("%s at update %d: %s.", phase.capitalize(), self._algorithm.num_updates, counts)

    def _publish_start(self) -> None:
        """Gives actors a policy to begin with; a continued run goes on with the one it has published."""
        if self._outputs is None:
            return
        self.progress.policy_version = self._outputs.newest_version
        if self._outputs.newest_version < max(self._algorithm.num_updates, 0):
            self._publish(self._outputs)
            logger.info("Published policy %d to begin with.", self.progress.policy_version)

    def _publish_last(self) -> None:
        if self._outputs is not None and not self._outputs.is_published(self._algorithm):
            self._publish(self._outputs)

    def _publish(self, outputs: Outputs) -> None:
        self.progress.policy_version = outputs.publish(self._algorithm)

    def _checkpoint_last(self) -> None:
        if not self._guard.is_healthy:
            logger.warning("The last updates were not finite: the checkpoint before them stays the newest.")
            return
        self._checkpoint()
        path = None if self._outputs is None else self._outputs.finish_checkpoint()
        if path is not None:
            logger.info("Ended at update %d; the policy is in %s.", self._algorithm.num_updates, path / "policy")

    def _checkpoint(self) -> None:
        if self._outputs is not None:
            self._outputs.checkpoint(self._algorithm, self._feed, self.progress)
        else:  # The state may be spread over the ranks: all of them gather it, the first one writes it.
            self._algorithm.state()

    def _go_back_together(self) -> None:
        """All ranks go back to the newest checkpoint, once the first one has it on disk."""
        if self._outputs is not None:
            self._outputs.finish_checkpoint()
        self._ranks.agree(Verdict.UPDATE)
        self._go_back()
        self._accepted_at = self._algorithm.num_updates

    def _measure(self) -> None:
        samples = self._feed.held_out
        if samples is None or self._outputs is None:
            return
        metrics = self._algorithm.evaluate(samples)
        self.progress.held_out_loss = metrics["loss"]
        row = {f"held_out/{name}": value for name, value in metrics.items()}
        self._outputs.log(row, num_updates=self._algorithm.num_updates)

    def _row(self, metrics: Mapping[str, float]) -> dict[str, float]:
        counts, progress = self._feed.counts, self.progress
        return {
            **{f"train/{name}": value for name, value in metrics.items()},
            "train/updates_per_s": progress.updates_per_s,
            "train/seconds": progress.seconds_trained,
            "train/skipped_updates": float(self._guard.num_skipped),
            "policy/version": float(progress.policy_version),
            "replay/steps": float(counts.num_steps),
            "replay/episodes": float(counts.num_episodes),
            "replay/accepted_episodes": float(counts.num_accepted_episodes),
            "replay/accepted_steps": float(counts.num_accepted_steps),
            "replay/update_to_data": update_to_data(self._algorithm.num_updates, counts.num_steps),
        }
