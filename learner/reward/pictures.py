"""Which pictures of labelled episodes show success, split by episode.

Legend: E episodes, N pictures, C cameras, S state width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learner.replay.held_out import is_held_out
from learner.replay.reader import ReplayDataset
from serl_launcher.config.classifier import ClassifierConfig
from serl_launcher.types import Outcome

LEARN, CALIBRATE, REPORT = 0, 1, 2
"""What an episode is for: the weights; choosing among them and the threshold; telling how good that threshold is."""

FINAL = -1
"""In place of a step: the observation after the last one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Places of pictures in one dataset, and what they show."""

    dataset: ReplayDataset
    episode: np.ndarray
    """int64 [N]."""
    step: np.ndarray
    """Dataset-wide step or FINAL, int64 [N]."""
    shows_success: np.ndarray
    """bool [N]."""
    purpose: np.ndarray
    """LEARN, CALIBRATE or REPORT, the same for all pictures of an episode, int64 [N]."""

    def read(self, chosen: np.ndarray, cameras: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns uint8 [B, C, height, width, 3] and states, float32 [B, S], of some pictures by their place here."""
        shape = self.dataset.image_shapes[cameras[0]]
        images = np.empty((len(chosen), len(cameras), *shape), np.uint8)
        states = np.empty((len(chosen), self.dataset.steps.state.shape[1]), np.float32)
        for row, place in enumerate(chosen):
            step, episode = int(self.step[place]), int(self.episode[place])
            is_final = step == FINAL
            states[row] = self.dataset.final_state(episode) if is_final else self.dataset.steps.state[step]
            for number, camera in enumerate(cameras):
                if is_final:
                    self.dataset.final_image(episode, camera, images[row, number])
                else:
                    self.dataset.image(step, camera, images[row, number])
        return images, states


def pictures_of(dataset: ReplayDataset, config: ClassifierConfig) -> Pictures:
    """Returns the pictures of every episode that is labelled success or failure.

    The last `num_positive_steps` of a success, its final observation included, show success; the `num_ignored_steps`
    before them are left out; all others show none. Successes and failures are split separately, so that both kinds are
    learned from and calibrated on; every second held-out episode of a kind is for the report.
    """
    outcome = dataset.episodes.outcome
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    purpose = np.full(dataset.num_episodes, LEARN)
    for kind in (Outcome.SUCCESS, Outcome.FAILURE):
        of_kind = np.flatnonzero(outcome == kind)
        held_out = of_kind[_at_least_one(is_held_out(len(of_kind), config.validation_fraction))]
        purpose[held_out[::2]], purpose[held_out[1::2]] = CALIBRATE, REPORT
        for episode in of_kind:
            parts.append(_of_episode(dataset, int(episode), config, is_success=kind == Outcome.SUCCESS))
    episode, step, shows = (np.concatenate(columns) if parts else np.zeros(0, np.int64) for columns in
                            (zip(*parts, strict=True) if parts else ((), (), ())))  # fmt: skip
    return Pictures(
        dataset=dataset, episode=episode, step=step, shows_success=shows.astype(bool),
        purpose=purpose[episode],
    )  # fmt: skip


def _of_episode(
    dataset: ReplayDataset, episode: int, config: ClassifierConfig, *, is_success: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, length = int(dataset.episodes.first_step[episode]), int(dataset.episodes.length[episode])
    steps = np.r_[first : first + length, FINAL]
    from_end = np.arange(length, -1, -1)
    shows = (from_end < config.num_positive_steps) & is_success
    ignored = is_success & ~shows & (from_end < config.num_positive_steps + config.num_ignored_steps)
    kept = ~ignored
    return np.full(int(kept.sum()), episode), steps[kept], shows[kept]


def _at_least_one(held_out: np.ndarray) -> np.ndarray:
    """Holds out the last episode where the share is too small for any, and there are two."""
    if len(held_out) > 1 and not held_out.any():
        held_out = held_out.copy()
        held_out[-1] = True
    return held_out
