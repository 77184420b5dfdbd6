"""Closed episodes as the journal hands them over, for tests of the dataset and of the replay."""

import numpy as np

from serl_launcher.events import EncodedObservation, StepRecorded, encode_observation
from serl_launcher.journal import EpisodeRecord
from serl_launcher.specs import CameraSpec, ImageEncoding, RobotSpec
from serl_launcher.types import Observation, Outcome, Source

DIM = 3


def robot(*, size: int = 24, cameras: int = 2, encoding: ImageEncoding = "jpeg", hz: float = 10.0) -> RobotSpec:
    """Returns a robot with DIM joints and square cameras."""
    names = tuple(f"j{joint}" for joint in range(DIM))
    return RobotSpec(
        name="tester",
        cameras=tuple(
            CameraSpec(name=f"cam_{index}", height=size, width=size, encoding=encoding) for index in range(cameras)
        ),
        state_names=names,
        action_names=names,
        action_low=(-1.0,) * DIM,
        action_high=(1.0,) * DIM,
        control_hz=hz,
    )


def image_of(spec: RobotSpec, camera: int, episode: int, step: int) -> np.ndarray:
    """Returns the picture a camera shows at a step: one shade per camera, episode and step."""
    shade = np.array([40 * camera + 20, (episode * 37) % 256, (step * 5) % 256], np.uint8)
    return np.broadcast_to(shade, spec.cameras[camera].shape).copy()


def state_of(episode: int, step: int) -> np.ndarray:
    """Returns the state at a step, float32 [DIM]."""
    return np.array([episode, step, step / 8], np.float32)


def action_of(episode: int, step: int) -> np.ndarray:
    """Returns the executed action at a step, float32 [DIM]."""
    return np.array([episode / 16, step / 32, -step / 32], np.float32)


def observe(spec: RobotSpec, episode: int, step: int, prompt: str) -> EncodedObservation:
    """Returns the encoded observation at a step."""
    images = {camera.name: image_of(spec, index, episode, step) for index, camera in enumerate(spec.cameras)}
    return encode_observation(Observation(images=images, state=state_of(episode, step), prompt=prompt), spec)


def make_episode(
    spec: RobotSpec,
    number: int,
    length: int,
    *,
    outcome: Outcome = Outcome.SUCCESS,
    sources: list[Source] | None = None,
    end: str = "terminated",
    prompt: str = "put the cube on the plate",
) -> EpisodeRecord:
    """Returns an episode whose images, states and actions tell its number and their step.

    Args:
        spec: The robot.
        number: Told by every value in it.
        length: Steps.
        outcome: Its label; the last reward is 1 where it is a success.
        sources: Who acted at each step; the policy everywhere if None.
        end: `terminated`, `truncated` or anything else for an episode that just stops.
        prompt: Its instruction.
    """
    steps = [
        StepRecorded(
            episode_id=f"a-1-{number}",
            step=step,
            observation=observe(spec, number, step, prompt),
            action=action_of(number, step).tobytes(),
            reward=float(outcome == Outcome.SUCCESS and step == length - 1),
            terminated=end == "terminated" and step == length - 1,
            truncated=end == "truncated" and step == length - 1,
            source=int(sources[step]) if sources else int(Source.POLICY),
            policy_version=7,
            wall_time_s=1.7e9 + step / spec.control_hz,
            monotonic_s=step / spec.control_hz,
        )
        for step in range(length)
    ]
    return EpisodeRecord(
        actor_id="a",
        episode_id=f"a-1-{number}",
        prompt=prompt,
        seed=number if number % 2 else None,
        started_wall_time_s=1.7e9,
        steps=steps,
        final_observation=observe(spec, number, length, prompt),
        outcome=outcome,
        labelled_by="script",
        label_wall_time_s=1.7e9 + length,
    )
