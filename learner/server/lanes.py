"""Observations of one request, decoded and stacked: what a policy is called with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serl_launcher.errors import ProtocolError
from serl_launcher.events import EncodedObservation, decode_vector
from serl_launcher.images import decode_image
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Unfinished


@dataclass(frozen=True, kw_only=True, slots=True)
class Lanes:
    """One or more observations, B of them."""

    images: np.ndarray
    """uint8 [B, C, height, width, 3], cameras in the order of the robot's spec."""
    state: np.ndarray
    """float32 [B, S]."""
    prompts: list[str]
    image_valid: np.ndarray | None = None
    """bool [B, C], False where the robot lacks a camera; None: it has all."""
    unfinished: tuple[Unfinished | None, ...] = field(default=())
    """What each lane is still executing; empty: nothing is known of any."""

    def __len__(self) -> int:
        """Returns the number of observations."""
        return len(self.prompts)


def decode_lanes(
    observations: Sequence[EncodedObservation], spec: RobotSpec, unfinished: Sequence[Unfinished | None] = ()
) -> Lanes:
    """Decodes observations; raises ProtocolError where one does not fit the robot."""
    state = [decode_vector(observation.state, spec.state_dim, "state") for observation in observations]
    return Lanes(
        images=_decode_images(observations, spec.cameras),
        state=np.stack(state),
        prompts=[observation.prompt for observation in observations],
        unfinished=tuple(unfinished),
    )


def _decode_images(observations: Sequence[EncodedObservation], cameras: Sequence[CameraSpec]) -> np.ndarray:
    """Returns uint8 [B, C, height, width, 3]; each image is decoded or copied to its place, once."""
    if not cameras:
        return np.zeros((len(observations), 0, 1, 1, 3), np.uint8)
    if len({camera.shape for camera in cameras}) > 1:
        raise ProtocolError(
            f"Expected cameras of one size, got {[camera.shape for camera in cameras]}. Have the robot resize."
        )
    images = np.empty((len(observations), len(cameras), *cameras[0].shape), np.uint8)
    for row, observation in zip(images, observations, strict=True):
        for place, camera in zip(row, cameras, strict=True):
            decode_image(observation.images.get(camera.name, b""), camera.shape, place)
    return images


def join_lanes(parts: Sequence[Lanes]) -> Lanes:
    """Returns the observations of several requests as one batch, in order."""
    if len(parts) == 1:
        return parts[0]
    valid = None
    if any(part.image_valid is not None for part in parts):
        valid = np.concatenate([_valid(part) for part in parts])
    unfinished: tuple[Unfinished | None, ...] = ()
    if any(any(part.unfinished) for part in parts):
        unfinished = tuple(each for part in parts for each in (part.unfinished or (None,) * len(part)))
    return Lanes(
        images=np.concatenate([part.images for part in parts]),
        state=np.concatenate([part.state for part in parts]),
        prompts=[prompt for part in parts for prompt in part.prompts],
        image_valid=valid,
        unfinished=unfinished,
    )


def _valid(part: Lanes) -> np.ndarray:
    return np.ones(part.images.shape[:2], bool) if part.image_valid is None else part.image_valid
