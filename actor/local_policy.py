"""Runs weights in this process. Only what needs the `policy` extra imports this module: it brings torch."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from actor.policy_client import COMPLAIN_EVERY_S, STOP_POLL_S, TEMPORARY
from actor.progress import Throttle
from serl_launcher.errors import SpecMismatch
from serl_launcher.images import decode_image, encode_image
from serl_launcher.policies import load_policy
from serl_launcher.specs import RobotSpec
from serl_launcher.types import ActionChunk, Observation

logger = logging.getLogger(__name__)

FETCH_TIMEOUT_S = 60.0


class LocalPolicy:
    """Weights in this process. The noise depends on the seed and the order of calls alone."""

    def __init__(self, directory: Path, spec: RobotSpec, *, seed: int, version: int = 0, device: str = "cpu") -> None:
        """Loads a checkpoint.

        Raises:
            SpecMismatch: The policy was made for another robot.
            CheckpointError: The directory holds no usable policy.
        """
        self.version = version
        self._spec = spec
        self._policy = load_policy(directory, device=device)
        self._generator = torch.Generator(device=device).manual_seed(seed)
        check_same_robot(self._policy.spec, spec, directory)

    def act(self, observations: list[Observation]) -> list[ActionChunk]:
        """Returns one chunk per observation, from one batched call of the policy."""
        images = np.stack([self._images_of(observation) for observation in observations])
        state = np.stack([observation.state for observation in observations])
        prompts = [observation.prompt for observation in observations]
        actions = self._policy.act(images, state, prompts, generator=self._generator)
        return [ActionChunk(actions=chunk, policy_version=self.version) for chunk in actions]

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk | None:
        """Returns the next actions; never waits for anybody, so `patience_s` has no effect."""
        del patience_s
        return self.act([observation])[0]

    def forget(self) -> None:
        """Does nothing: no request is ever under way."""

    def _images_of(self, observation: Observation) -> np.ndarray:
        """Returns uint8 [C, H, W, 3] as the learner would see them, with the losses of the camera's encoding."""
        cameras = [self._spec.camera(name) for name in self._policy.spec.camera_names]
        encoded = [encode_image(observation.images[camera.name], camera) for camera in cameras]
        return np.stack([decode_image(image, camera.shape) for image, camera in zip(encoded, cameras, strict=True)])


class Announced(Protocol):
    """What the learner last broadcast."""

    @property
    def policy_version(self) -> int: ...


class Publications(Protocol):
    """Where published weights come from; `serl_launcher.transport.client.LearnerClient` is one."""

    @property
    def announcement(self) -> Announced | None:
        """The newest broadcast; None before the first."""
        ...

    def fetch_policy(self, version: int, destination: Path, *, timeout_s: float) -> Path:
        """Downloads a published version into a directory of its own, checks it, and returns the directory."""
        ...


class FollowingPolicy:
    """Runs the newest published weights in this process; it changes them between chunks only."""

    def __init__(
        self, publications: Publications, spec: RobotSpec, *, cache: Path, seed: int, is_stopping: Callable[[], bool]
    ) -> None:
        """Prepares to follow what the learner announces; versions are kept below `cache`."""
        self._publications = publications
        self._spec = spec
        self._cache = cache
        self._seed = seed
        self._is_stopping = is_stopping
        self._current: LocalPolicy | None = None
        self._complaint = Throttle(COMPLAIN_EVERY_S)

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk | None:
        """Returns the next actions of the newest weights at hand; waits only while there are none at all."""
        give_up_at = time.monotonic() + patience_s
        while not self._is_stopping():
            self._refresh()
            if self._current is not None:
                return self._current.chunk_for(observation)
            if time.monotonic() >= give_up_at:
                return None
            time.sleep(STOP_POLL_S)
        return None

    def forget(self) -> None:
        """Does nothing: no request is ever under way."""

    def _refresh(self) -> None:
        announcement = self._publications.announcement
        if announcement is None or announcement.policy_version < 0:
            return
        version = announcement.policy_version
        if self._current is not None and self._current.version == version:
            return
        try:
            directory = self._publications.fetch_policy(
                version, self._cache / f"{version:08d}", timeout_s=FETCH_TIMEOUT_S
            )
        except TEMPORARY as exc:
            if self._complaint.is_due():
                logger.warning("Policy %d cannot be fetched: %s The actor goes on with what it has.", version, exc)
            return
        self._current = LocalPolicy(directory, self._spec, seed=self._seed + version, version=version)
        for older in self._cache.iterdir():
            if older != directory:
                shutil.rmtree(older)
        logger.info("Policy %d loaded.", version)


def check_same_robot(theirs: RobotSpec, ours: RobotSpec, directory: Path) -> None:
    """Raises SpecMismatch where a policy cannot drive a robot: other joints, missing cameras, other image sizes."""
    differences = [
        f"{what}: policy {their_names}, robot {our_names}"
        for what, their_names, our_names in (
            ("state_names", theirs.state_names, ours.state_names),
            ("action_names", theirs.action_names, ours.action_names),
        )
        if their_names != our_names
    ]
    shapes = {camera.name: camera.shape for camera in ours.cameras}
    differences += [
        f"camera {camera.name!r}: policy {camera.shape}, robot {shapes.get(camera.name, 'has none')}"
        for camera in theirs.cameras
        if shapes.get(camera.name) != camera.shape
    ]
    if differences:
        raise SpecMismatch(
            f"The policy in {directory} was made for robot {theirs.name!r}, this is {ours.name!r}: "
            f"{'; '.join(differences)}. Evaluate it on the robot it was made for."
        )
