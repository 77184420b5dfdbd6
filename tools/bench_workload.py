"""What the benchmarks record and send: a robot with three cameras and pictures that compress like real ones."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serl_launcher.events import EncodedObservation, StepRecorded, encode_observation, encode_vector
from serl_launcher.journal import EpisodeRecord
from serl_launcher.specs import CameraSpec, ImageEncoding, RobotSpec
from serl_launcher.types import Observation, Outcome, Source

NUM_JOINTS = 14
PROMPT = "put the red cube on the green plate"


def bench_robot(
    *, size: int = 224, cameras: int = 3, encoding: ImageEncoding = "jpeg", quality: int = 95, hz: float = 50.0
) -> RobotSpec:
    """Returns a robot with NUM_JOINTS joints and square cameras of `size` pixels."""
    names = tuple(f"joint_{joint}" for joint in range(NUM_JOINTS))
    return RobotSpec(
        name="bench",
        cameras=tuple(
            CameraSpec(name=f"cam_{number}", height=size, width=size, encoding=encoding, quality=quality)
            for number in range(cameras)
        ),
        state_names=names,
        action_names=names,
        action_low=(-1.0,) * NUM_JOINTS,
        action_high=(1.0,) * NUM_JOINTS,
        control_hz=hz,
    )


def make_frames(count: int, spec: RobotSpec, *, seed: int = 0) -> np.ndarray:
    """Returns uint8 [T, C, height, width, 3]: smooth scenes that drift past each camera, with sensor noise.

    A 224x224 picture is about 20 KB as JPEG 95, as pictures of a table and a gripper are.
    """
    rng = np.random.default_rng(seed)
    size = spec.cameras[0].height
    coarse = rng.uniform(0, 255, (len(spec.cameras), size // 4 + 2, size // 4 + count // 8 + 4, 3)).astype(np.float32)
    scenes = coarse.repeat(8, axis=1).repeat(8, axis=2)
    for axis in (1, 2):
        for _ in range(2):
            scenes = np.mean([np.roll(scenes, shift, axis=axis) for shift in range(-4, 5)], axis=0)
    frames = np.empty((count, len(spec.cameras), size, size, 3), np.uint8)
    for step in range(count):
        seen = scenes[:, 16 : 16 + size, 16 + step : 16 + step + size]
        frames[step] = (seen + rng.normal(0, 1.2, seen.shape)).clip(0, 255)
    return frames


def observe(frames: np.ndarray, step: int, spec: RobotSpec) -> Observation:
    """Returns what the robot senses at a step; the pictures repeat after the last one."""
    shown = frames[step % len(frames)]
    images = {camera.name: shown[number] for number, camera in enumerate(spec.cameras)}
    return Observation(
        images=images, state=np.sin(0.02 * step + np.arange(NUM_JOINTS)).astype(np.float32), prompt=PROMPT
    )


def encode_step(observation: EncodedObservation, episode_id: str, step: int) -> StepRecorded:
    """Returns the event of a step whose action moves every joint."""
    action = np.cos(0.02 * step + np.arange(NUM_JOINTS))
    return StepRecorded(
        episode_id=episode_id, step=step, observation=observation, action=encode_vector(action, NUM_JOINTS, "action"),
        reward=0.0, terminated=False, truncated=False, source=int(Source.POLICY), policy_version=0,
        wall_time_s=time.time(), monotonic_s=time.monotonic(),
    )  # fmt: skip


def record_of(observations: Sequence[EncodedObservation], episode_id: str) -> EpisodeRecord:
    """Returns a closed episode of these observations; the last one is the final one."""
    *seen, final = observations
    return EpisodeRecord(
        actor_id="bench",
        episode_id=episode_id,
        prompt=PROMPT,
        seed=None,
        started_wall_time_s=time.time(),
        steps=[encode_step(observation, episode_id, step) for step, observation in enumerate(seen)],
        final_observation=final,
        outcome=Outcome.SUCCESS,
        labelled_by="script",
        label_wall_time_s=time.time(),
    )


def encode_all(frames: np.ndarray, spec: RobotSpec, count: int) -> list[EncodedObservation]:
    """Returns `count` encoded observations."""
    return [encode_observation(observe(frames, step, spec), spec) for step in range(count)]


@dataclass(kw_only=True, slots=True)
class Cost:
    """What a piece of work took."""

    wall_s: float
    cpu_s: float
    """Of this process and the children that it waited for."""


def measure(work: Callable[[], object]) -> Cost:
    """Runs `work` once and returns what it took."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return Cost(wall_s=time.perf_counter() - wall, cpu_s=cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its finished children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """Returns a percentile of durations in milliseconds."""
    return float(1e3 * np.percentile(np.asarray(seconds), percent)) if len(seconds) else float("nan")
