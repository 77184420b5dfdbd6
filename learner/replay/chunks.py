"""Assembles training samples: an observation, the chunk of actions that followed it, and what came after.

Legend: B batch, C cameras, H chunk horizon, A action width, S state width. A chunk that would cross the end of its
episode is padded; it never continues in the next episode.
"""

from collections.abc import Callable, Sequence

import numpy as np

from learner.replay.batch import Batch, concatenate
from learner.replay.columns import EpisodeTable
from learner.replay.reader import ReplayDataset
from learner.returns import chunk_returns, corrected_rewards, labelled_rewards, returns_to_go
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome

__all__ = ["Batch", "ChunkSampler", "chunk_steps", "concatenate"]


def chunk_steps(steps: np.ndarray, last_steps: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps of each chunk and which of them are padding.

    Args:
        steps: First step of each chunk, int64 [B].
        last_steps: Last step of its episode, int64 [B].
        horizon: H.

    Returns:
        int64 [B, H], with the last step repeated where the episode is over, and bool [B, H], True there.
    """
    wanted = steps[:, None] + np.arange(horizon)
    return np.minimum(wanted, last_steps[:, None]), wanted > last_steps[:, None]


def is_worth_imitating(episodes: EpisodeTable) -> np.ndarray:
    """Returns which episodes a policy may clone, bool [E]: successes, and demonstrations that nobody labelled.

    An unlabelled episode of a policy is mostly one that ran out of time.
    """
    is_demonstration = (episodes.outcome == Outcome.UNLABELLED) & ~episodes.has_policy_steps
    return (episodes.outcome == Outcome.SUCCESS) | is_demonstration


class ChunkSampler:
    """Turns steps of one dataset into a `Batch`. Pure: the same steps give the same batch."""

    def __init__(
        self,
        dataset: ReplayDataset,
        *,
        horizon: int,
        cameras: Sequence[str],
        discount: float = 1.0,
        with_next: bool = False,
        return_horizon: int | None = None,
        rewards_from_labels: bool = False,
    ) -> None:
        """Samples chunks of `horizon` actions.

        Args:
            dataset: May grow while it is sampled.
            horizon: H, at least 1.
            cameras: Which cameras, in the order of `Batch.images`.
            discount: Gamma per step, in [0, 1].
            with_next: Whether to fill `next_images`, `next_state`, `return_to_go` and `is_successful`; it costs as
                many images again.
            return_horizon: Steps of a chunk that are executed before the next decision: reward, discount and what
                follows are those after so many. None: all of them.
            rewards_from_labels: Whether the newest labels of episodes take the place of recorded rewards. Else the last
                step alone follows a person's label, which may have come after the episode.
        """
        if horizon < 1 or not 0 <= discount <= 1:
            raise ValueError(f"Expected horizon >= 1 and a discount in [0, 1], got {horizon} and {discount}.")
        self.dataset = dataset
        self.horizon = horizon
        self.cameras = tuple(cameras)
        self.discount = discount
        self._has_next = with_next
        self._return_horizon = horizon if return_horizon is None else return_horizon
        self._from_labels = rewards_from_labels
        self._reward, self._is_terminal = dataset.steps.reward, dataset.steps.is_terminal
        self._returns_to_go = np.zeros(0, np.float32)
        self._revision = -1

    def sample(self, steps: np.ndarray) -> Batch:
        """Returns one sample per step number, int64 [B] in [0, num_steps).

        Raises:
            DatasetError: An image is damaged, or the cameras' sizes differ.
        """
        columns, episodes = self.dataset.steps, self.dataset.episodes
        self._follow_dataset()
        steps = np.asarray(steps, np.int64)
        episode = columns.episode[steps]
        last = episodes.first_step[episode] + episodes.length[episode] - 1
        chunk, is_pad = chunk_steps(steps, last, self.horizon)
        executed, is_beyond = chunk[:, : self._return_horizon], is_pad[:, : self._return_horizon]
        returns = chunk_returns(self._reward[executed], self._is_terminal[executed], is_beyond, discount=self.discount)
        tasks = columns.task_index[steps]
        batch = Batch(
            images=self._read(len(steps), lambda n, camera, out: self.dataset.image(int(steps[n]), camera, out)),
            state=columns.state[steps],
            prompts=[self.dataset.prompts[task] for task in tasks],
            actions=self.dataset.targets[chunk],
            is_pad=is_pad,
            reward=returns.reward,
            discount=returns.discount,
            is_terminal=returns.is_terminal,
        )
        if self._has_next:
            batch.return_to_go = self._returns_to_go[steps]
            batch.is_successful = is_worth_imitating(episodes)[episode]
            self._fill_next_(batch, steps + (~is_beyond).sum(axis=1), episode, last)
        return batch

    def _follow_dataset(self) -> None:
        """Makes rewards anew when the dataset has changed: episodes were added, or labels corrected."""
        if self._revision == self.dataset.revision:
            return
        self._revision = self.dataset.revision
        columns, episodes = self.dataset.steps, self.dataset.episodes
        last = episodes.first_step + episodes.length - 1
        if self._from_labels:
            self._reward, self._is_terminal = labelled_rewards(episodes.outcome, last, len(columns))
        else:
            judged = episodes.is_judged_by_person
            self._reward, self._is_terminal = corrected_rewards(
                columns.reward, columns.is_terminal, outcome=episodes.outcome[judged], last_step=last[judged]
            )
        if self._has_next:
            self._returns_to_go = returns_to_go(self._reward, columns.episode, discount=self.discount)

    def _fill_next_(self, batch: Batch, following: np.ndarray, episode: np.ndarray, last: np.ndarray) -> None:
        """Fills in the observation after each chunk: a later step's, or the episode's final one."""

        def read(sample: int, camera: str, out: np.ndarray) -> object:
            if following[sample] > last[sample]:
                return self.dataset.final_image(int(episode[sample]), camera, out)
            return self.dataset.image(int(following[sample]), camera, out)

        batch.next_images = self._read(len(following), read)
        batch.next_state = self.dataset.steps.state[np.minimum(following, last)]
        for sample in np.flatnonzero(following > last):
            batch.next_state[sample] = self.dataset.final_state(int(episode[sample]))

    def _read(self, count: int, read: Callable[[int, str, np.ndarray], object]) -> np.ndarray:
        """Returns the images of all cameras for `count` samples, uint8 [B, C, height, width, 3].

        `read` puts the image of a sample and a camera into the array that it is given.
        """
        if not self.cameras:
            return np.empty((count, 0, 1, 1, 3), np.uint8)
        shapes = {self.dataset.image_shapes.get(camera) for camera in self.cameras}
        shape = shapes.pop() if len(shapes) == 1 else None
        if shape is None:
            raise DatasetError(
                f"Expected cameras {list(self.cameras)} of one size, {self.dataset.root} has "
                f"{self.dataset.image_shapes}."
            )
        images = np.empty((count, len(self.cameras), *shape), np.uint8)
        for sample in range(count):
            for number, camera in enumerate(self.cameras):
                read(sample, camera, images[sample, number])
        return images
