"""Assembles training samples: an observation, the chunk of actions that followed it, and what came after.

Legend: B batch, C cameras, H chunk horizon, A action width, S state width. A chunk that would cross the end of its
episode is padded; it never continues in the next episode.
"""

from collections.abc import Callable, Sequence

import numpy as np

from learner.replay.batch import Batch, concatenate
from learner.replay.reader import ReplayDataset
from serl_launcher.errors import DatasetError, ProtocolError
from serl_launcher.images import decode_image

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
    ) -> None:
        """Samples chunks of `horizon` actions.

        Args:
            dataset: May grow while it is sampled.
            horizon: H, at least 1.
            cameras: Which cameras, in the order of `Batch.images`.
            discount: Gamma per step, in [0, 1].
            with_next: Whether to fill `next_images` and `next_state`, which costs as many images again.
        """
        if horizon < 1 or not 0 <= discount <= 1:
            raise ValueError(f"Expected horizon >= 1 and a discount in [0, 1], got {horizon} and {discount}.")
        self.dataset = dataset
        self.horizon = horizon
        self.cameras = tuple(cameras)
        self.discount = discount
        self._has_next = with_next

    def sample(self, steps: np.ndarray) -> Batch:
        """Returns one sample per step number, int64 [B] in [0, num_steps).

        Raises:
            DatasetError: An image is damaged, or the cameras' sizes differ.
        """
        columns, episodes = self.dataset.steps, self.dataset.episodes
        steps = np.asarray(steps, np.int64)
        episode = columns.episode[steps]
        last = episodes.first_step[episode] + episodes.length[episode] - 1
        chunk, is_pad = chunk_steps(steps, last, self.horizon)
        powers = (self.discount ** np.arange(self.horizon + 1)).astype(np.float32)
        num_real = (~is_pad).sum(axis=1)
        is_terminal = np.logical_or.reduce(columns.is_terminal[chunk] & ~is_pad, axis=1)
        tasks = columns.task_index[steps]
        batch = Batch(
            images=self._decode(len(steps), lambda n, camera: self.dataset.encoded_image(int(steps[n]), camera)),
            state=columns.state[steps],
            prompts=[self.dataset.prompts[task] for task in tasks],
            actions=columns.action[chunk],
            is_pad=is_pad,
            reward=(columns.reward[chunk] * ~is_pad * powers[:-1]).sum(axis=1, dtype=np.float32),
            discount=np.where(is_terminal, np.float32(0), powers[num_real]),
            is_terminal=is_terminal,
        )
        if self._has_next:
            self._fill_next_(batch, steps + num_real, episode, last)
        return batch

    def _fill_next_(self, batch: Batch, following: np.ndarray, episode: np.ndarray, last: np.ndarray) -> None:
        """Fills in the observation after each chunk: a later step's, or the episode's final one."""

        def encoded(sample: int, camera: str) -> memoryview:
            if following[sample] > last[sample]:
                return self.dataset.encoded_final_image(int(episode[sample]), camera)
            return self.dataset.encoded_image(int(following[sample]), camera)

        batch.next_images = self._decode(len(following), encoded)
        batch.next_state = self.dataset.steps.state[np.minimum(following, last)]
        for sample in np.flatnonzero(following > last):
            batch.next_state[sample] = self.dataset.final_state(int(episode[sample]))

    def _decode(self, count: int, encoded: Callable[[int, str], memoryview]) -> np.ndarray:
        """Returns the images of all cameras for `count` samples, uint8 [B, C, height, width, 3]."""
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
                try:
                    images[sample, number] = decode_image(encoded(sample, camera), shape)
                except ProtocolError as exc:
                    raise DatasetError(f"Damaged image in {self.dataset.root}, run tools.replay verify: {exc}") from exc
        return images
