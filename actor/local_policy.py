"""Runs weights in this process. Only what needs the `policy` extra imports this module: it brings torch."""

import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from actor.policy_client import COMPLAIN_EVERY_S, STOP_POLL_S, TEMPORARY
from actor.progress import Throttle
from serl_launcher.errors import DeadlineExceeded, HiorsError, PolicyError, SpecMismatch
from serl_launcher.images import decode_image, encode_image, stack_images
from serl_launcher.policies.any_policy import load_any_policy
from serl_launcher.policies.pi0 import Pi0Policy
from serl_launcher.specs import RobotSpec
from serl_launcher.types import ActionChunk, Observation, Unfinished

logger = logging.getLogger(__name__)

FETCH_TIMEOUT_S = 60.0


@dataclass(kw_only=True, slots=True)
class _Seen:
    """A batch of observations, as policies take it."""

    images: np.ndarray
    state: np.ndarray
    prompts: list[str]
    image_valid: np.ndarray | None = None
    unfinished: Sequence[Unfinished | None] = ()


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
        self._policy = load_any_policy(directory, device=device)
        self._generator = torch.Generator(device=self._policy.device).manual_seed(seed)
        check_same_robot(self._policy.spec, spec, directory)

    def act(self, observations: list[Observation], unfinished: Sequence[Unfinished | None] = ()) -> list[ActionChunk]:
        """Returns one chunk per observation, from one batched call of the policy.

        `unfinished` is what each robot still executes, for policies that continue it; empty where that is not known.
        """
        seen = _Seen(
            images=np.stack([self._images_of(observation) for observation in observations]),
            state=np.stack([observation.state for observation in observations]),
            prompts=[observation.prompt for observation in observations],
            unfinished=unfinished,
        )
        if any(unfinished) and isinstance(self._policy, Pi0Policy):
            actions = self._policy.act_on(seen, generator=self._generator)
        else:
            actions = self._policy.act(seen.images, seen.state, seen.prompts, generator=self._generator)
        return [ActionChunk(actions=chunk, policy_version=self.version) for chunk in actions]

    def warm_up(self, observations: Sequence[Observation] = ()) -> None:
        """Acts on observations, or on nothing, so that the first real call does not wait for memory and kernels.

        Raises:
            PolicyError: The actions are not finite.
        """
        seen = list(observations) or [_nothing(self._spec)]
        noise = self._generator.get_state()  # What robots get must not depend on how this was warmed up.
        chunks = self.act(seen)
        chunks += self.act(seen, [Unfinished(actions=chunk.actions, delay_ticks=1) for chunk in chunks])
        self._generator.set_state(noise)
        if not all(np.isfinite(chunk.actions).all() for chunk in chunks):
            raise PolicyError("Its actions are not finite.")

    def _images_of(self, observation: Observation) -> np.ndarray:
        """Returns uint8 [C, H, W, 3] as the learner would see them, with the losses of the camera's encoding."""
        cameras = [self._spec.camera(name) for name in self._policy.spec.camera_names]
        encoded = [encode_image(observation.images[camera.name], camera) for camera in cameras]
        return stack_images([decode_image(image, camera.shape) for image, camera in zip(encoded, cameras, strict=True)])


def _nothing(spec: RobotSpec) -> Observation:
    images = {camera.name: np.zeros(camera.shape, np.uint8) for camera in spec.cameras}
    return Observation(images=images, state=np.zeros(spec.state_dim, np.float32), prompt="warm up")


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
    """Answers with the newest usable weights, in a thread of this process; it changes them between chunks only."""

    def __init__(
        self, publications: Publications, spec: RobotSpec, *, cache: Path, seed: int, device: str = "cpu"
    ) -> None:
        """Prepares to follow what the learner announces; versions are kept below `cache` and run on `device`."""
        self._publications = publications
        self._spec = spec
        self._cache = cache
        self._seed = seed
        self._device = device
        self._current: LocalPolicy | None = None
        self._bad_version: int | None = None
        self._newest_seen: Sequence[Observation] = ()
        self._complaint = Throttle(COMPLAIN_EVERY_S)
        # One thread each: the noise depends on the order of calls, and a slow fetch delays no action.
        self._acting = ThreadPoolExecutor(1, thread_name_prefix="local-policy")
        self._fetching = ThreadPoolExecutor(1, thread_name_prefix="fetch-policy")
        self._fetch: Future[None] | None = None

    def act_async(
        self, observations: list[Observation], *, timeout_s: float, unfinished: Sequence[Unfinished | None] = ()
    ) -> "Future[list[ActionChunk]]":
        """Returns at once; the future gives one chunk per observation, or DeadlineExceeded while there are no weights.

        `unfinished` is what each robot still executes.
        """
        return self._acting.submit(self._act, observations, unfinished, time.monotonic(), timeout_s)

    def _act(
        self, observations: list[Observation], unfinished: Sequence[Unfinished | None], began_s: float, timeout_s: float
    ) -> list[ActionChunk]:
        while not self._refresh():
            if time.monotonic() - began_s >= timeout_s:
                raise DeadlineExceeded("The learner has published no policy yet.")
            time.sleep(STOP_POLL_S)
        assert self._current is not None
        self._newest_seen = observations
        started_s = time.monotonic()
        try:
            chunks = self._current.act(observations, unfinished)
        except HiorsError:
            raise
        except Exception as exc:  # Whatever a model raises: the robot holds and asks again.
            raise PolicyError(f"Policy {self._current.version} failed: {type(exc).__name__}: {exc}") from exc
        ended_s = time.monotonic()
        timings = {
            "queue": 1e3 * (started_s - began_s), "model": 1e3 * (ended_s - started_s),
            "round_trip": 1e3 * (ended_s - began_s),
        }  # fmt: skip
        for chunk in chunks:
            chunk.timings_ms = dict(timings)
        return chunks

    def _refresh(self) -> bool:
        """Begins to fetch a newer announced version; returns whether there are weights at all."""
        announcement = self._publications.announcement
        version = -1 if announcement is None else announcement.policy_version
        known = (-1, self._bad_version, None if self._current is None else self._current.version)
        if self._fetch is not None and self._fetch.done():
            self._fetch.result()
            self._fetch = None
        if version not in known and self._fetch is None:
            self._fetch = self._fetching.submit(self._take_over, version)
        return self._current is not None

    def _take_over(self, version: int) -> None:
        try:
            directory = self._publications.fetch_policy(
                version, self._cache / f"{version:08d}", timeout_s=FETCH_TIMEOUT_S
            )
        except (*TEMPORARY, OSError) as exc:  # OSError: a full disk may have room again later.
            if self._complaint.is_due():
                logger.warning("Policy %d cannot be fetched: %s The actor goes on with what it has.", version, exc)
            return
        try:
            policy = LocalPolicy(directory, self._spec, seed=self._seed + version, version=version, device=self._device)
            policy.warm_up(self._newest_seen)
        except (HiorsError, OSError, RuntimeError, ValueError, MemoryError) as exc:
            self._bad_version = version  # Once only: what is bad stays bad.
            logger.warning("Policy %d is not taken over, the actor goes on with what it has: %s", version, exc)
            return
        self._current = policy
        for older in self._cache.iterdir():
            if older != directory:
                shutil.rmtree(older, ignore_errors=True)
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
