"""A robot whose episodes end when somebody says so, with the reward that this means."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from actor.rewards.bus import RewardBus
from robot_infra.interfaces import RobotEnv, Transition
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation, Outcome


class Watcher(Protocol):
    """Looks at every observation and posts verdicts by itself, e.g. a classifier."""

    def begin(self) -> None:
        """A new episode begins."""
        ...

    def look(self, observation: Observation) -> None:
        """Sees what came of the last action."""
        ...


class Rewarder(Watcher, Protocol):
    """A watcher that says what each step earns."""

    reward: float
    """For the observation that it looked at last."""


class JudgedEnv:
    """Wraps a robot; satisfies `robot_infra.interfaces.RobotEnv`.

    A verdict of success ends the episode with reward 1, one of failure with 0; `aborted` cuts it off. Where the
    environment is not among the judges its own reward and success do not count, and an episode that runs out of time
    without a verdict is unlabelled: it waits for a late label. Where there is a rewarder every step earns what it says.
    What the action itself costs is taken off whatever it earns.
    """

    def __init__(
        self, env: RobotEnv, bus: RewardBus, *, environment_judges: bool, watchers: Sequence[Watcher] = (),
        rewarder: Rewarder | None = None,
    ) -> None:  # fmt: skip
        self.env = env
        self._bus, self._environment_judges, self._rewarder = bus, environment_judges, rewarder
        self._watchers = [*watchers] if rewarder is None else [*watchers, rewarder]

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like."""
        return self.env.spec

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode; verdicts until then are about the one before."""
        self._bus.end()
        observation = self.env.reset(seed=seed)
        self._bus.begin()
        for watcher in self._watchers:
            watcher.begin()
        return observation

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot; ends the episode where somebody judged it."""
        transition = self.env.step(action)
        for watcher in self._watchers:
            watcher.look(transition.observation)
        verdict = self._bus.take()
        if verdict is not None:
            success, aborted = verdict.outcome is Outcome.SUCCESS, verdict.outcome is Outcome.ABORTED
            transition = replace(
                transition, reward=float(success) - transition.cost, terminated=not aborted, truncated=aborted,
                success=success, outcome=verdict.outcome, judged_by=verdict.by,
            )  # fmt: skip
        elif not self._environment_judges:
            is_over = transition.terminated or transition.truncated
            transition = replace(
                transition, reward=0.0 - transition.cost, terminated=False, truncated=is_over, success=False,
                outcome=Outcome.UNLABELLED if is_over else None,
            )  # fmt: skip
        if self._rewarder is not None:
            transition = replace(transition, reward=self._rewarder.reward - transition.cost)
        if transition.terminated or transition.truncated:
            self._bus.end()
        return transition

    def render(self) -> np.ndarray:
        """Returns a picture of the scene."""
        return self.env.render()

    def close(self) -> None:
        """Frees the robot."""
        self.env.close()

    def __getattr__(self, name: str) -> Any:  # Any: whatever else the robot has, e.g. `keeps_time`.
        return getattr(self.env, name)
