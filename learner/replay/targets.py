"""What a policy is to imitate at each step: the command that was given, or where the robot then was.

Legend: N steps, A action width, S state width.
"""

from collections.abc import Callable, Mapping

import numpy as np

from learner.replay.columns import EpisodeTable, StepColumns
from serl_launcher.datasets import features
from serl_launcher.errors import ConfigError

FinalState = Callable[[int], np.ndarray]
"""Returns what was measured after the last step of an episode, float32 [S]."""


class Targets:
    """The targets of one dataset, made as it grows."""

    def __init__(self, label: str) -> None:
        """Gives `commanded` or `measured` targets."""
        self._label = label
        self._measured: list[np.ndarray] = []
        self._num_episodes = 0

    def check(self, described: Mapping[str, dict]) -> None:
        """Raises ConfigError where a measured state is nothing that could be commanded.

        Args:
            described: The features of the dataset, by name.
        """
        if self._label == "commanded":
            return
        states, actions = (_names_of(described[name]) for name in (features.STATE, features.ACTION))
        if states != actions:
            raise ConfigError(
                "dataset.label=measured needs a robot whose actions are positions of its states; here the actions are "
                f"{list(actions)[:4]} and the states {list(states)[:4]}. Set dataset.label=commanded."
            )

    def of(self, episodes: EpisodeTable, steps: StepColumns, final_state: FinalState) -> np.ndarray:
        """Returns the targets of all steps, float32 [N, A]; episodes are only ever added at the end."""
        if self._label == "commanded":
            return steps.action
        if self._num_episodes < len(episodes):
            new = measured_targets(episodes, steps, final_state, first_episode=self._num_episodes)
            self._measured = [np.concatenate([*self._measured, new])]
            self._num_episodes = len(episodes)
        return self._measured[0] if self._measured else steps.action


def measured_targets(
    episodes: EpisodeTable, steps: StepColumns, final_state: FinalState, *, first_episode: int = 0
) -> np.ndarray:
    """Returns the state that followed each step, float32 [N', A], from the first step of `first_episode` on.

    Hi-ORS (arXiv:2510.26406) labels with measured joints, so that a takeover below the policy counts as it was driven.
    The last step of an episode is followed by its final observation.

    Args:
        episodes: Of the dataset.
        steps: Likewise; states are positions of the joints that the actions command, so S = A.
        final_state: What followed the last step of an episode.
        first_episode: Row of the first episode that is wanted.
    """
    begin = int(episodes.first_step[first_episode])
    targets = np.concatenate([steps.state[begin + 1 :], steps.state[-1:]])
    last = episodes.first_step[first_episode:] + episodes.length[first_episode:] - 1
    for episode, step in enumerate(last, first_episode):
        targets[step - begin] = final_state(episode)
    return targets


def _names_of(feature: dict) -> tuple[str, ...]:
    """Returns the names of a vector's entries, flat; their numbers where the dataset names none."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = [name for group in names.values() for name in group]
    return tuple(str(name) for name in names or range(int(feature["shape"][0])))
