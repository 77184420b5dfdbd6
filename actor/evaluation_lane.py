"""One robot of an evaluation and the episode that is played on it, with whoever may help."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from actor.braking import brake
from actor.video import VideoFile
from robot_infra import safety
from robot_infra.interfaces import HOLD, Hold, Operator, RobotEnv, Transition, keeps_time
from serl_launcher.types import Observation, Outcome


@dataclass(kw_only=True, slots=True)
class Lane:
    """Plays the chunks that it is given, tick by tick, until the episode is over or somebody helped."""

    env: RobotEnv
    gate: safety.Gate
    operator: Operator | None = None
    """Who may take over; None: nobody."""
    is_stopping: Callable[[], bool] = lambda: False
    """Whether the evaluation is to end."""
    episode: int = -1
    attempt: int = 1
    seed: int = 0
    prompt: str = ""
    """What the scene asks for; the policy may be told something else."""
    num_steps: int = 0
    """Ticks at which policy or person acted."""
    num_takeovers: int = 0
    num_human_steps: int = 0
    is_busy: bool = False
    began_s: float = 0.0
    """Monotonic time of the end of the reset."""
    observation: Observation | None = None
    video: VideoFile | None = None

    def begin(self, episode: int, attempt: int, *, seed: int) -> None:
        """Starts an episode from the seed; it counts as begun once the robot is at its start."""
        self.gate.require_clear()
        observation = self.env.reset(seed=seed)
        self.gate.begin(safety.standing_still(self.env.spec, observation.state))
        self.episode, self.attempt, self.seed = episode, attempt, seed
        self.num_steps = self.num_takeovers = self.num_human_steps = 0
        self.is_busy, self.began_s = True, time.monotonic()
        self.observation, self.prompt = observation, observation.prompt
        if self.operator is not None:
            self.operator.reset()

    def film(self, video: VideoFile | None) -> None:
        """Films the episode from now on."""
        self.video = video
        self._film()

    def play(self, actions: np.ndarray) -> Outcome | None:
        """Executes actions [h, A] until the episode is over; returns how it ended, None where it goes on.

        Where a person takes over the rest of the actions is dropped, and it returns when the person has let go.
        """
        for action in actions:
            if self.is_stopping():
                return None
            command = self._said(action)
            if command is not None:
                return self._follow_person(command)
            outcome = self._act(action)
            if outcome is not None:
                return outcome
        return None

    def rest(self) -> Outcome | None:
        """Leaves the robot where it is for a tick, and brakes it where it moves; nobody acts."""
        self.gate.require_clear()
        return self._tick(self._resting())

    def end(self) -> None:
        """The episode is over: the video is finished, and a robot that would go on moving brakes, unfilmed."""
        self.is_busy = False
        if self.video is not None:
            self.video.close()
            self.video = None
        if keeps_time(self.env):
            brake(self.env, self.gate)

    def _said(self, proposal: np.ndarray | None) -> np.ndarray | Hold | None:
        assert self.observation is not None, "A lane that plays has been reset."
        return None if self.operator is None else self.operator.command(self.observation, proposal)

    def _follow_person(self, command: np.ndarray | Hold | None) -> Outcome | None:
        self.num_takeovers += 1
        outcome = None
        while command is not None and outcome is None and not self.is_stopping():
            self.num_human_steps += 1
            if command is HOLD:
                self.num_steps += 1
                outcome = self.rest()
            else:
                outcome = self._act(command)
            command = self._said(None) if outcome is None else None
        return outcome

    def _resting(self) -> np.ndarray:
        """Returns the command that leaves the robot where it is."""
        assert self.observation is not None, "A lane that plays has been reset."
        command = self.gate.hold()
        if command is None or safety.standing_still(self.env.spec, self.observation.state) is None:
            return self.gate.admit(np.zeros(self.env.spec.action_dim, np.float32))
        return command

    def _act(self, action: np.ndarray) -> Outcome | None:
        self.num_steps += 1
        return self._tick(self.gate.admit(action))

    def _tick(self, command: np.ndarray) -> Outcome | None:
        transition = self.env.step(command)
        self.gate.note_executed(transition.executed_action)
        self.observation = transition.observation
        self._film()
        return _outcome(transition)

    def _film(self) -> None:
        if self.video is not None:
            self.video.add(self.env.render())


def _outcome(transition: Transition) -> Outcome | None:
    """Returns how the episode ended: by whoever judged it, else by the environment; None where it goes on."""
    if not (transition.terminated or transition.truncated):
        return None
    return transition.outcome or (Outcome.SUCCESS if transition.success else Outcome.FAILURE)
