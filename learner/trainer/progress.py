"""How far the training is: one record, from which the status file and a checkpoint's counters are made."""

from dataclasses import dataclass

WAITING, TRAINING, FINISHED = "waiting", "training", "finished"

_SMOOTHING = 0.95


@dataclass(kw_only=True, slots=True)
class Progress:
    """Counters of the training; times are seconds."""

    phase: str = WAITING
    loss: float | None = None
    policy_version: int = -1
    """Newest published version."""
    seconds_trained: float = 0.0
    """Wall time of updates, without waiting, over all starts of the run."""
    seconds_per_update: float = 0.0
    """Moving average."""
    episodes_at_restart: int = 0
    """Accepted episodes when the schedule of the learning rate last began."""
    held_out_loss: float | None = None
    """Last loss on held-out episodes."""

    def counters(self) -> dict[str, float]:
        """Returns what a checkpoint keeps beside the training time."""
        counters = {"episodes_at_restart": float(self.episodes_at_restart)}
        return counters if self.held_out_loss is None else {**counters, "held_out_loss": self.held_out_loss}

    def load_counters(self, counters: dict[str, float]) -> None:
        """Takes over what `counters` returned; a checkpoint of an older version has none."""
        self.episodes_at_restart = int(counters.get("episodes_at_restart", 0))
        self.held_out_loss = counters.get("held_out_loss")

    def count_update(self, seconds: float) -> None:
        """Adds one update that took `seconds`."""
        self.seconds_trained += seconds
        is_first = self.seconds_per_update == 0.0
        self.seconds_per_update = (
            seconds if is_first else _SMOOTHING * self.seconds_per_update + (1 - _SMOOTHING) * seconds
        )

    @property
    def updates_per_s(self) -> float:
        """Rate while training; 0 before the first update."""
        return 1.0 / self.seconds_per_update if self.seconds_per_update else 0.0


def seconds_left(progress: Progress, num_updates: int, *, max_updates: int, max_seconds: float) -> float | None:
    """Returns the training time to go by whichever limit comes first, None while it cannot be told."""
    limits = []
    if max_seconds > 0:
        limits.append(max_seconds - progress.seconds_trained)
    if progress.seconds_per_update:
        limits.append((max_updates - num_updates) * progress.seconds_per_update)
    return max(min(limits), 0.0) if limits else None
