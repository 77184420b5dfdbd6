"""In-process records that cross package borders. What travels or is stored is in `serl_launcher.events`."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np


class Source(IntEnum):
    """Who chose the action that was executed."""

    POLICY = 0
    HUMAN = 1
    SCRIPT = 2


class Outcome(StrEnum):
    """How an episode ended, by its newest label."""

    SUCCESS = "success"
    FAILURE = "failure"
    ABORTED = "aborted"
    UNLABELLED = "unlabelled"


@dataclass(kw_only=True, slots=True)
class Observation:
    """What the robot senses at one tick.

    Example:
        Observation(images={"cam_high": np.zeros((64, 64, 3), np.uint8)}, state=np.zeros(14, np.float32),
                    prompt="put the red cube on the green plate")
    """

    images: dict[str, np.ndarray]
    """Camera name to uint8 (height, width, 3), RGB."""
    state: np.ndarray
    """float32 [S]."""
    prompt: str
    """The instruction in force at this tick."""


@dataclass(kw_only=True, slots=True)
class ActionChunk:
    """Actions for the next H ticks, and which weights chose them."""

    actions: np.ndarray
    """float32 [H, A], in robot units."""
    policy_version: int
    timings_ms: dict[str, float] = field(default_factory=dict)
    """Durations in milliseconds, e.g. `queue`, `model`, `round_trip`."""


@dataclass(kw_only=True, slots=True)
class Unfinished:
    """What a robot is still executing while it asks for the next actions (real-time chunking, arXiv:2506.07339)."""

    actions: np.ndarray
    """float32 [K, A], robot units: the plan from the tick of the observation on; the next chunk should continue it."""
    delay_ticks: int
    """How many of them will be executed before the answer is there."""
