"""What the cameras see, as JPEG for the page; encoded once for all viewers, and only while there are any."""

import numpy as np
import simplejpeg

from actor.console.shown_env import ShownEnv

MAX_SIDE = 640
"""Larger pictures are sent with every second (third, ...) pixel."""


class Pictures:
    """The newest pictures of a robot; used by one thread."""

    def __init__(self, env: ShownEnv, *, quality: int) -> None:
        self._env, self._quality = env, quality
        self._number = 0
        self._encoded: list[bytes] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Cameras in the order of the pictures."""
        return self._env.spec.camera_names

    def newest(self) -> tuple[int, list[bytes]]:
        """Returns how many observations there were, and the newest one's pictures; each begins with its number."""
        self._env.look_again()
        number, observation = self._env.num_seen, self._env.newest
        if observation is not None and number != self._number:
            self._encoded = [
                bytes([index]) + self._encode(observation.images[name]) for index, name in enumerate(self.names)
            ]
            self._number = number
        return self._number, self._encoded

    def _encode(self, picture: np.ndarray) -> bytes:
        every = -(-max(picture.shape[:2]) // MAX_SIDE)
        small = np.ascontiguousarray(picture[::every, ::every])
        return simplejpeg.encode_jpeg(small, quality=self._quality, colorspace="RGB", colorsubsampling="420")
