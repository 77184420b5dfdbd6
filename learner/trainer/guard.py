"""Keeps a training run alive when the loss stops being finite, and ends it when that happens too often.

finite -> (loss or gradient is not finite: skip) x max_skipped_updates -> go back to the last checkpoint
max_rollbacks within WINDOW updates -> give up
"""

import logging
from collections import deque

from serl_launcher.config.training import TrainingConfig
from serl_launcher.errors import PolicyError

logger = logging.getLogger(__name__)

WINDOW = 1000
"""Updates within which `training.max_rollbacks` counts."""


class NotFinite(PolicyError):
    """The loss or the gradient of an update is not finite; the weights are as before it."""


class Diverged(NotFinite):
    """Going back to a checkpoint does not help: the same start would end in the same way."""


class Guard:
    """Counts updates that were skipped, and decides when to go back to a checkpoint."""

    def __init__(self, config: TrainingConfig) -> None:
        """Reads `max_skipped_updates` and `max_rollbacks`."""
        self._config = config
        self._rollbacks: deque[int] = deque()
        self.num_skipped = 0
        """Over the life of this process."""
        self.num_in_a_row = 0

    @property
    def is_healthy(self) -> bool:
        """Whether the last update was finite: only then may a checkpoint be written."""
        return self.num_in_a_row == 0

    @property
    def num_rollbacks(self) -> int:
        """Within the last WINDOW updates."""
        return len(self._rollbacks)

    def accept(self) -> None:
        """Notes an update that was finite."""
        self.num_in_a_row = 0

    def is_rollback_due(self, failure: NotFinite, num_updates: int) -> bool:
        """Notes a skipped update; returns whether to go back to the last checkpoint now.

        Raises:
            Diverged: It happened too often; the message says how often.
        """
        self.num_skipped += 1
        self.num_in_a_row += 1
        logger.warning("Update %d is skipped (%d in a row): %s", num_updates, self.num_in_a_row, failure)
        if self.num_in_a_row < self._config.max_skipped_updates:
            return False
        while self._rollbacks and num_updates - self._rollbacks[0] > WINDOW:
            self._rollbacks.popleft()
        if len(self._rollbacks) >= self._config.max_rollbacks:
            raise Diverged(
                f"{self._config.max_skipped_updates} updates in a row were not finite, again after "
                f"{len(self._rollbacks)} returns to a checkpoint (training.max_rollbacks); the trainer is not started "
                f"again. Start the run again with other settings: it continues from its last checkpoint. {failure}"
            ) from failure
        self._rollbacks.append(num_updates)
        self.num_in_a_row = 0
        return True
