"""Online rejection sampling (Hi-ORS, arXiv:2510.26406): behaviour cloning of the episodes that were good enough.

It wraps `Sft` and adds only the acceptance rule: an episode counts where its score reaches the threshold in force,
which rises with the number of episodes accepted (m_1 <= ... <= m_N, section 2.2). Departure: demonstrations are mixed
in at an exact share (`dataset.offline_fraction`), against forgetting.
"""

from pathlib import Path

import numpy as np
from torch import Tensor

from learner.algorithms.interfaces import Sampling
from learner.algorithms.sft import Sft
from learner.replay.batch import Batch
from learner.replay.reader import ReplayDataset
from learner.replay.views import MovingSteps, accepted, accepted_steps, scores
from learner.trainer.publishing import Snapshot
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.config.training import AlgoConfig


class RejectSampling:
    """Learns from demonstrations and from accepted online episodes."""

    def __init__(self, sft: Sft, config: AlgoConfig, dataset: DatasetConfig) -> None:
        """Trains through `sft`; `dataset` says how accepted steps are weighted."""
        self._sft = sft
        self._config = config
        self._dataset = dataset
        self._moving = MovingSteps(dataset, horizon=sft.horizon)

    @property
    def num_updates(self) -> int:
        """Updates made, over all starts of the run."""
        return self._sft.num_updates

    @property
    def sampling(self) -> Sampling:
        """Chunks of the policy's horizon."""
        return self._sft.sampling

    @property
    def learns_online(self) -> bool:
        """Whether the replay is learned from: accepted online steps count, too."""
        return True

    @property
    def num_steps_to_start(self) -> int:
        """Accepted online steps before the first update."""
        return self._config.training_starts

    @property
    def offline_fraction(self) -> float:
        """Share of a batch that comes from the demonstrations."""
        return self._dataset.offline_fraction

    def update(self, batch: Batch) -> dict[str, float]:
        """Makes one supervised update."""
        return self._sft.update(batch)

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the `loss` of the published weights."""
        return self._sft.evaluate(batch)

    def restart_schedule(self) -> None:
        """Begins the schedule of the learning rate anew."""
        self._sft.restart_schedule()

    def accepted(self, replay: ReplayDataset) -> np.ndarray:
        """Returns which online episodes reach the threshold in force, bool [E]."""
        threshold = threshold_in_force(scores(replay.episodes), self._config)
        return accepted(replay.episodes, threshold=threshold, min_steps=self._dataset.min_episode_steps)

    def online_weights(self, replay: ReplayDataset) -> np.ndarray:
        """Returns the relative chance of each online step, float64 [N]; 0 outside accepted episodes."""
        threshold = threshold_in_force(scores(replay.episodes), self._config)
        return accepted_steps(self._dataset, threshold=threshold, moving=self._moving)(replay)

    def save_policy(self, directory: Path) -> None:
        """Writes the policy to act with into an existing directory."""
        self._sft.save_policy(directory)

    def snapshot_policy(self) -> Snapshot:
        """Returns the policy to act with as it is now, to be written while training goes on."""
        return self._sft.snapshot_policy()

    def load_policy(self, directory: Path) -> None:
        """Takes over saved weights."""
        self._sft.load_policy(directory)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns the state of `sft`: the threshold follows from the data."""
        return self._sft.state()

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken."""
        self._sft.load_state(tensors, scalars)


def threshold_in_force(episode_scores: np.ndarray, config: AlgoConfig) -> float:
    """Returns the threshold after episodes with these scores, in recording order, float64 [E].

    The k-th threshold of the schedule holds once k - 1 times `threshold_period` episodes were accepted, each by the
    threshold in force when it ended; the last one holds for ever. Without a schedule it is `success_threshold`.
    """
    if not config.threshold_schedule:
        return config.success_threshold
    schedule = [max(threshold, config.success_threshold) for threshold in config.threshold_schedule]
    stage, num_in_stage = 0, 0
    for score in episode_scores:
        if stage == len(schedule) - 1:
            break
        num_in_stage += bool(score >= schedule[stage])
        if num_in_stage == config.threshold_period:
            stage, num_in_stage = stage + 1, 0
    return schedule[stage]
