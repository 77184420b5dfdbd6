"""The person of the emulated cell: moves the leader arms, presses keys, prepares the next scene.

    playing -- success, or all is lost: presses s or f --> waiting -- the arms are back home --> playing, a new scene
       └──── the arms go home by themselves (out of time) ────────────────────────────────────────┘

Sees the table, as a person does, and neither the actor nor its network.
"""

from collections.abc import Callable
from enum import Enum, auto

import numpy as np

from robot_infra.envs.sim_pnp.env import SimPnp
from robot_infra.envs.sim_pnp.person import ScriptedPerson
from robot_infra.interfaces import Transition
from serl_launcher.config.actor import InterventionConfig
from serl_launcher.types import Observation, Outcome

TAKEOVER_KEY, SUCCESS_KEY, FAILURE_KEY = "t", "s", "f"
HOME_WITHIN_RAD, AWAY_BEYOND_RAD = 0.05, 0.15
HOME_TICKS = 3


class _Phase(Enum):
    PLAYING = auto()
    WAITING = auto()


class CellPerson:
    """Call `tick` once per simulated tick."""

    def __init__(
        self, sim: SimPnp, home: np.ndarray, press: Callable[[str], None], *, demonstrates: bool, seed: int
    ) -> None:
        """Stands beside the cell.

        Args:
            sim: The table.
            home: Reset pose of the robot, [14].
            press: Presses a key.
            demonstrates: Whether the robot follows the leader arms all the time, so that nobody has to take over.
            seed: Of the first scene.
        """
        self._sim, self._home, self._press = sim, home, press
        self._demonstrates, self._seed = demonstrates, seed
        self._joints = np.array([index % 7 != 6 for index in range(14)])
        self._person = ScriptedPerson(sim, InterventionConfig(), always_drive=demonstrates)
        self.num_scenes = 0
        self.num_verdicts = 0
        self._new_scene()

    def tick(self, measured: np.ndarray, transition: Transition) -> np.ndarray:
        """Returns where the person holds the leader arms, [14]."""
        distance = np.abs(measured - self._home)[self._joints].max()
        self._was_away |= bool(distance > AWAY_BEYOND_RAD)
        self._home_ticks = self._home_ticks + 1 if distance < HOME_WITHIN_RAD else 0
        if self._was_away and self._home_ticks >= HOME_TICKS:
            self._new_scene()
            return self._home  # What was seen is the scene before.
        if self._phase is _Phase.WAITING:
            return self._home
        return self._play(measured, transition)

    def _play(self, measured: np.ndarray, transition: Transition) -> np.ndarray:
        if transition.terminated:
            self._judge(transition)
            return measured
        command = self._person.command(transition.observation, None)
        if self._person.is_driving != self._is_driving and not self._demonstrates:
            self._press(TAKEOVER_KEY)
        self._is_driving = self._person.is_driving
        return measured if command is None else command

    def _judge(self, transition: Transition) -> None:
        outcome = self._person.judge(transition)
        self._press(SUCCESS_KEY if outcome is Outcome.SUCCESS else FAILURE_KEY)
        self.num_verdicts += 1
        self._phase = _Phase.WAITING

    def _new_scene(self) -> None:
        self._sim.reset(seed=self._seed + self.num_scenes)
        self._person.reset()
        self.num_scenes += 1
        self._phase, self._was_away, self._is_driving, self._home_ticks = _Phase.PLAYING, False, False, 0


def nothing_seen(observation: dict[str, object]) -> Observation:
    """Returns an observation for a person who looks at the table itself."""
    del observation
    return Observation(images={}, state=np.zeros(14, np.float32), prompt="")
