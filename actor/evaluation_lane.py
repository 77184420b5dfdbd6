"""One robot of an evaluation and the episode that is played on it, with whoever may help."""

from dataclasses import dataclass

import numpy as np

from actor.video import VideoFile
from robot_infra import safety
from robot_infra.interfaces import HOLD, Hold, Operator, RobotEnv
from serl_launcher.types import Observation


@dataclass(kw_only=True, slots=True)
class Lane:
    """Plays the chunks that it is given, tick by tick, until the episode is over or somebody helped."""

    env: RobotEnv
    gate: safety.Gate
    operator: Operator | None = None
    """Who may take over; None: nobody."""
    episode: int = -1
    attempt: int = 1
    seed: int = 0
    prompt: str = ""
    """What the scene asks for; the policy may be told something else."""
    num_steps: int = 0
    num_takeovers: int = 0
    num_human_steps: int = 0
    is_busy: bool = False
    observation: Observation | None = None
    video: VideoFile | None = None

    def begin(self, episode: int, attempt: int, *, seed: int, video: VideoFile | None) -> None:
        """Starts an episode from the seed."""
        self.episode, self.attempt, self.seed, self.video = episode, attempt, seed, video
        self.num_steps = self.num_takeovers = self.num_human_steps = 0
        self.is_busy = True
        self.observation = self.env.reset(seed=seed)
        self.prompt = self.observation.prompt
        self.gate.begin(safety.standing_still(self.env.spec, self.observation.state))
        if self.operator is not None:
            self.operator.reset()
        self._film()

    def play(self, actions: np.ndarray) -> bool | None:
        """Executes actions [h, A] until the episode is over; returns whether it was solved, None where it goes on.

        Where a person takes over the rest of the actions is dropped, and it returns when the person has let go.
        """
        for action in actions:
            command = self._said(action)
            if command is not None:
                return self._follow_person(command)
            solved = self._tick(action)
            if solved is not None:
                return solved
        return None

    def stop_filming(self) -> None:
        """Finishes the video, where there is one."""
        if self.video is not None:
            self.video.close()
            self.video = None

    def _said(self, proposal: np.ndarray | None) -> np.ndarray | Hold | None:
        assert self.observation is not None, "A lane that plays has been reset."
        return None if self.operator is None else self.operator.command(self.observation, proposal)

    def _follow_person(self, command: np.ndarray | Hold | None) -> bool | None:
        self.num_takeovers += 1
        solved = None
        while command is not None and solved is None:
            self.num_human_steps += 1
            solved = self._tick(self._resting() if command is HOLD else command)
            command = self._said(None) if solved is None else None
        return solved

    def _resting(self) -> np.ndarray:
        """Returns the action that leaves the robot where it is."""
        assert self.observation is not None, "A lane that plays has been reset."
        here = safety.standing_still(self.env.spec, self.observation.state)
        last = self.gate.last_command
        if here is None or last is None:
            return np.zeros(self.env.spec.action_dim, np.float32)
        return last

    def _tick(self, action: np.ndarray) -> bool | None:
        transition = self.env.step(self.gate.admit(action))
        self.gate.note_executed(transition.executed_action)
        self.observation = transition.observation
        self.num_steps += 1
        self._film()
        if not (transition.terminated or transition.truncated):
            return None
        self.is_busy = False
        self.stop_filming()
        return bool(transition.success)

    def _film(self) -> None:
        if self.video is not None:
            self.video.add(self.env.render())
