"""A robot with two joints that is to reach the target which its state tells; small enough to reason about by hand."""

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from robot_infra.interfaces import HOLD, Hold, Transition
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import ActionChunk, Observation, Outcome

PROMPTS = ("reach to the right", "reach to the left")
SPEC = RobotSpec(
    name="tiny",
    cameras=(CameraSpec(name="cam", height=16, width=24, encoding="png"),),
    state_names=("j0", "j1"),
    action_names=("j0", "j1"),
    action_low=(-2.0, -2.0),
    action_high=(2.0, 2.0),
    control_hz=50.0,
)


@dataclass
class TinyRobot:
    """Succeeds when both joints are within 0.05 of the goal; the goal is 0.5 or -1.0, by the prompt."""

    max_steps: int = 20
    spec: RobotSpec = SPEC
    joints: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))
    commands: list[np.ndarray] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    is_closed: bool = False
    num_steps: int = 0
    goal: float = 0.5

    def reset(self, *, seed: int) -> Observation:
        rng = np.random.default_rng(seed)
        self.seeds.append(seed)
        self.joints = rng.uniform(-0.2, 0.2, 2).astype(np.float32)
        self.goal = (0.5, -1.0)[seed % 2]
        self.num_steps = 0
        return self._observe()

    def step(self, action: np.ndarray) -> Transition:
        self.commands.append(action)
        self.joints = action.astype(np.float32)
        self.num_steps += 1
        success = bool(np.abs(self.joints - self.goal).max() < 0.05)
        return Transition(
            observation=self._observe(),
            reward=float(success),
            terminated=success,
            truncated=not success and self.num_steps >= self.max_steps,
            success=success,
            executed_action=action.astype(np.float32),
        )

    def render(self) -> np.ndarray:
        return np.full((33, 49, 3), 10 * self.num_steps % 256, np.uint8)

    def close(self) -> None:
        self.is_closed = True

    def _observe(self) -> Observation:
        image = np.full((16, 24, 3), self.num_steps % 256, np.uint8)
        return Observation(images={"cam": image}, state=self.joints.copy(), prompt=PROMPTS[self.goal < 0])


def towards(observation: Observation, goal: float, *, horizon: int, speed: float = 0.2) -> np.ndarray:
    """Returns actions [horizon, 2] that approach the goal by at most `speed` per tick."""
    actions, joints = [], observation.state
    for _ in range(horizon):
        joints = joints + np.clip(goal - joints, -speed, speed)
        actions.append(joints)
    return np.asarray(actions, np.float32)


@dataclass
class PromptFollower:
    """A policy that goes where its prompt says."""

    horizon: int = 4
    version: int = 7
    batch_sizes: list[int] = field(default_factory=list)

    def act(self, observations: list[Observation]) -> list[ActionChunk]:
        self.batch_sizes.append(len(observations))
        return [
            ActionChunk(
                actions=towards(observation, -1.0 if observation.prompt == PROMPTS[1] else 0.5, horizon=self.horizon),
                policy_version=self.version,
            )
            for observation in observations
        ]

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk | None:
        return self.act([observation])[0]

    def forget(self) -> None:
        pass


@dataclass
class Person:
    """Drives at the given ticks of every episode, to where the prompt says, or holds the robot."""

    ticks: frozenset[int]
    holds: bool = False
    tick: int = 0
    proposals: list[np.ndarray | None] = field(default_factory=list)

    def reset(self) -> None:
        self.tick = 0

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray | Hold | None:
        drives = self.tick in self.ticks
        self.tick += 1
        self.proposals.append(proposal)
        goal = -1.0 if observation.prompt == PROMPTS[1] else 0.5
        if drives and self.holds:
            return HOLD
        return towards(observation, goal, horizon=1, speed=0.1)[0] if drives else None

    def judge(self, transition: Transition) -> Outcome:
        return Outcome.SUCCESS if transition.success else Outcome.FAILURE


@dataclass
class Service:
    """Answers action requests with what `answer` returns or raises; stays silent where it returns None."""

    answer: Callable[[int, list[Observation]], list[ActionChunk] | Exception | None]
    requests: list[list[Observation]] = field(default_factory=list)
    futures: list[Future[list[ActionChunk]]] = field(default_factory=list)

    def act_async(self, observations: list[Observation], *, timeout_s: float) -> Future[list[ActionChunk]]:
        future: Future[list[ActionChunk]] = Future()
        result = self.answer(len(self.requests), observations)
        self.requests.append(observations)
        self.futures.append(future)
        if isinstance(result, Exception):
            future.set_exception(result)
        elif result is not None:
            future.set_result(result)
        return future
