"""Views: which steps of a dataset are drawn, and how often. Predicates over one dataset, never copies.

Legend: E episodes, N steps, H chunk horizon.
"""

from collections.abc import Callable

import numpy as np

from learner.replay.chunks import chunk_steps
from learner.replay.columns import EpisodeTable, StepColumns
from learner.replay.reader import ReplayDataset
from serl_launcher.config.dataset import DatasetConfig, SamplingWeights
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome, Source

StepWeights = Callable[[ReplayDataset], np.ndarray]
"""Returns float64 [N]: the relative chance of each step; 0 is never drawn."""


class View:
    """Draws steps of one dataset by weight; follows the dataset as it grows."""

    def __init__(self, dataset: ReplayDataset, weigh: StepWeights) -> None:
        """Draws from `dataset` as `weigh` says; the rule is asked again whenever the dataset changed."""
        self.dataset = dataset
        self._weigh = weigh
        self._revision = -1
        self._cumulative = np.zeros(0)
        self._num_steps = 0

    @property
    def num_steps(self) -> int:
        """Steps with a chance to be drawn."""
        self._update()
        return self._num_steps

    def set_rule(self, weigh: StepWeights) -> None:
        """Replaces the rule, e.g. when the acceptance threshold rises."""
        self._weigh = weigh
        self._revision = -1

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns `count` steps drawn with replacement, int64; raises DatasetError while none can be drawn."""
        self._update()
        if not self._num_steps:
            raise DatasetError(f"No step of {self.dataset.root} can be drawn: it is empty or nothing was accepted.")
        chances = rng.random(count) * self._cumulative[-1]
        return np.searchsorted(self._cumulative, chances, side="right").astype(np.int64)

    def _update(self) -> None:
        if self._revision == self.dataset.revision:
            return
        weights = self._weigh(self.dataset)
        self._cumulative = np.cumsum(weights)
        self._num_steps = int(np.count_nonzero(weights))
        self._revision = self.dataset.revision


def all_steps(dataset: ReplayDataset) -> np.ndarray:
    """Returns the weights of a view in which every step has the same chance."""
    return np.ones(dataset.num_steps)


def sampling_window(dataset: ReplayDataset, config: DatasetConfig) -> np.ndarray:
    """Returns 1 for each of the newest `config.capacity` steps and of pinned episodes, 0 for others, float64 [N]."""
    num_older = max(0, dataset.num_steps - config.capacity)
    weights = np.ones(dataset.num_steps)
    if num_older:
        weights[:num_older] = dataset.is_pinned(config.pinned)[dataset.steps.episode[:num_older]]
    return weights


def successful_steps(dataset: ReplayDataset) -> np.ndarray:
    """Returns the steps of successful episodes, bool [N]."""
    return (dataset.episodes.outcome == Outcome.SUCCESS)[dataset.steps.episode]


def intervention_steps(dataset: ReplayDataset) -> np.ndarray:
    """Returns the steps that somebody else commanded in an episode of the policy, bool [N]."""
    steps = dataset.steps
    return (steps.source != Source.POLICY) & dataset.episodes.has_policy_steps[steps.episode]


ONLINE_VIEWS: dict[str, StepWeights] = {
    "all": all_steps, "successful": successful_steps, "interventions": intervention_steps,
}  # fmt: skip
"""Views of the replay, by their name in `dataset.mixture`."""


def among(view: StepWeights, weigh: StepWeights) -> StepWeights:
    """Returns the rule `weigh` where `view` is not 0, and 0 elsewhere."""
    return lambda dataset: weigh(dataset) * (view(dataset) > 0)


def demonstrations(config: DatasetConfig, *, horizon: int) -> StepWeights:
    """Returns the rule for demonstration datasets: every step that moves, and is not of an episode that failed."""
    moving = MovingSteps(config, horizon=horizon)

    def weigh(dataset: ReplayDataset) -> np.ndarray:
        is_wanted = ~np.isin(dataset.episodes.outcome, (Outcome.FAILURE, Outcome.ABORTED))
        weights = is_wanted[dataset.steps.episode].astype(np.float64)
        return weights * moving(dataset)

    return weigh


def accepted_steps(
    config: DatasetConfig, *, threshold: float, moving: StepWeights, control_hz: float | None = None
) -> StepWeights:
    """Returns the rule of rejection sampling: steps of accepted episodes, weighted by who acted.

    Args:
        config: Capacity, shortest episode and weights.
        threshold: Least score of an accepted episode, see `scores`.
        moving: Which steps pass the no-op filter (`MovingSteps`).
        control_hz: Ticks per second; the dataset's own if None.
    """

    def weigh(dataset: ReplayDataset) -> np.ndarray:
        episodes, steps = dataset.episodes, dataset.steps
        is_accepted = accepted(episodes, threshold=threshold, min_steps=config.min_episode_steps)
        lead = round(config.weights.pre_intervention_s * (control_hz or dataset.control_hz))
        weights = intervention_weights(episodes, steps, config.weights, lead=lead)
        weights *= is_accepted[steps.episode]
        weights *= sampling_window(dataset, config)
        weights *= is_at_varied_rate(steps, stride=config.policy_stride)
        return weights * moving(dataset)

    return weigh


def scores(episodes: EpisodeTable) -> np.ndarray:
    """Returns what an episode is worth, float64 [E].

    A success is worth its return, where rewards of progress add up to more than 1, but 1 at least. Without a label the
    return counts where the task ended with it. What was cut off waits for a label: the progress made until then would
    pass for success. Everything else is worth 0.
    """
    is_ended = (episodes.outcome == Outcome.UNLABELLED) & episodes.is_terminated
    unlabelled = np.where(is_ended, episodes.episode_return, 0.0)
    return np.where(episodes.outcome == Outcome.SUCCESS, np.maximum(1.0, episodes.episode_return), unlabelled)


def accepted(episodes: EpisodeTable, *, threshold: float, min_steps: int) -> np.ndarray:
    """Returns which episodes are learned from, bool [E]: score at or above the threshold, and not too short."""
    return (scores(episodes) >= threshold) & is_long_enough(episodes, min_steps=min_steps)


def is_long_enough(episodes: EpisodeTable, *, min_steps: int) -> np.ndarray:
    """Returns which episodes have `min_steps` steps or more, bool [E]: a label right after the start is an accident."""
    return episodes.length >= min_steps


def is_at_varied_rate(steps: StepColumns, *, stride: int) -> np.ndarray:
    """Returns every step of a person and each `stride`-th of the policy's own, counted from where it took control.

    Hi-ORS (arXiv:2510.26406) records a person at 10 Hz and its policy once per executed chunk of 20, so that a second
    of help is as many samples as 20 s without; here all is recorded, and this chooses among it, bool [N].
    """
    by_policy = steps.source == Source.POLICY
    number = np.arange(len(steps))
    begins = by_policy & ~(np.r_[False, by_policy[:-1]] & np.r_[False, steps.episode[1:] == steps.episode[:-1]])
    since = number - np.maximum.accumulate(np.where(begins, number, 0)) if len(steps) else number
    return ~by_policy | (since % stride == 0)


def intervention_weights(
    episodes: EpisodeTable, steps: StepColumns, weights: SamplingWeights, *, lead: int
) -> np.ndarray:
    """Returns each step's weight by who acted, float64 [N].

    Steps commanded by a person in an episode of the policy weigh `weights.intervention`; steps of the policy among the
    `lead` ones before such a takeover weigh `weights.pre_intervention`, for they led to the trouble; demonstrations and
    the other steps weigh `weights.policy`.
    """
    by_policy = steps.source == Source.POLICY
    is_intervention = ~by_policy & episodes.has_policy_steps[steps.episode]
    result = np.where(is_intervention, weights.intervention, weights.policy).astype(np.float64)
    same_episode = np.r_[False, steps.episode[1:] == steps.episode[:-1]]
    takeovers = np.flatnonzero(is_intervention & np.r_[False, by_policy[:-1]] & same_episode)
    if len(takeovers) and lead > 0:
        before = takeovers[:, None] - np.arange(1, lead + 1)
        first = episodes.first_step[steps.episode[takeovers]]
        before = before[before >= first[:, None]]
        result[before[by_policy[before]]] = weights.pre_intervention
    return result


class MovingSteps:
    """The no-op filter of one dataset: asked again, it looks only at the steps that are new."""

    def __init__(self, config: DatasetConfig, *, horizon: int) -> None:
        """Looks at `config.noop_horizon` actions of a chunk, at all H where that is 0."""
        self._threshold = config.noop_threshold
        self._horizon = config.noop_horizon or horizon
        self._dataset: ReplayDataset | None = None
        self._known = np.zeros(0, bool)

    def __call__(self, dataset: ReplayDataset) -> np.ndarray:
        """Returns which steps begin a chunk that moves, bool [N]."""
        if dataset is not self._dataset or dataset.num_steps < len(self._known):
            self._dataset, self._known = dataset, np.zeros(0, bool)
        # Episodes are whole and are only ever added at the end.
        new = np.arange(len(self._known), dataset.num_steps)
        is_new_moving = is_moving(dataset, new, threshold=self._threshold, horizon=self._horizon)
        self._known = np.concatenate([self._known, is_new_moving])
        return self._known


def is_moving(dataset: ReplayDataset, steps: np.ndarray, *, threshold: float, horizon: int) -> np.ndarray:
    """Returns which of `steps` (int64 [B]) begin a chunk in which some joint moves, bool [B] (Hi-ORS, no-op filter).

    A joint moves where the standard deviation of its targets, from the one before the chunk to the last real one in
    it, exceeds `threshold` (robot units). The command before counts, so that an episode's last step, a chunk of one,
    moves where it opens the hand. A threshold of 0 keeps every step.
    """
    if threshold <= 0 or not len(steps):
        return np.ones(len(steps), bool)
    episodes, columns = dataset.episodes, dataset.steps
    before = np.maximum(steps - 1, episodes.first_step[columns.episode[steps]])
    last = (episodes.first_step + episodes.length - 1)[columns.episode[steps]]
    result = np.zeros(len(steps), bool)
    for begin in range(0, len(steps), 4096):
        block = slice(begin, begin + 4096)
        chunk, is_pad = chunk_steps(steps[block], last[block], horizon)
        window = np.concatenate([before[block, None], chunk], axis=1)
        is_unused = np.concatenate([np.zeros((len(window), 1), bool), is_pad], axis=1)
        targets = dataset.targets[window]
        actions = np.ma.array(targets, mask=np.repeat(is_unused[..., None], targets.shape[2], axis=2))
        result[block] = (actions.std(axis=1).filled(0) > threshold).any(axis=1)
    return result
