"""The person of `sim_pnp`: drives well, watches the policy, takes over when it is about to fail, hands back, judges.

The person looks at the table itself (the simulator's state), as a person beside a robot does; the policy never sees it.
"""

from dataclasses import dataclass

import numpy as np

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.env import SimPnp
from robot_infra.envs.sim_pnp.world import (
    ARM_WIDTH,
    HELD_OPENING,
    NOBODY,
    NUM_ARMS,
    OBJECT_SIZE_M,
    OPEN_ENOUGH,
    World,
    home_joints,
)
from robot_infra.interfaces import Transition
from serl_launcher.config.actor import InterventionConfig
from serl_launcher.types import Observation, Outcome

HOVER_M = 0.085
"""Height above an object or place at which the hand travels."""
STEP_M = 0.024
"""Most that the hand travels in one tick."""
UNSTEADINESS_M = 0.003
"""Standard deviation of a person's hand while it travels."""
STEADY_BELOW_M = 0.05
CLOSE_ENOUGH_M = 0.010
FUNNEL_START_M = 0.010
FUNNEL_END_M = 0.055
"""Between these horizontal distances the hand comes down towards its goal."""


@dataclass(kw_only=True, slots=True)
class Driver:
    """A stateless way to finish the task from any state: the same table gives the same command."""

    speed: float = 1.0
    """Share of STEP_M per tick."""

    def command(self, world: World) -> np.ndarray:
        """Returns the next command, float32 [14]."""
        arm = active_arm(world)
        tip, opening = self._next_tip(world, arm)
        joints = np.stack([home_joints(other) for other in range(NUM_ARMS)])
        joints[arm] = kinematics.joints_for_tip(tip, kinematics.BASES[arm])
        openings = np.ones(NUM_ARMS)
        openings[arm] = opening
        return np.concatenate([joints, openings[:, None]], axis=1).reshape(-1).astype(np.float32)

    def _next_tip(self, world: World, arm: int) -> tuple[np.ndarray, float]:
        tip, thing = world.tip(arm), int(world.held[arm])
        if thing == 0:
            goal = world.scene.place_positions[0] - world.grasp_offsets[arm]
            return self._towards(tip, goal, OBJECT_SIZE_M / 2 + 0.004, opening_when_there=1.0, opening_on_the_way=0.0)
        if thing != NOBODY:
            goal = _free_spot(world, thing)
            return self._towards(tip, goal, OBJECT_SIZE_M / 2 + 0.004, opening_when_there=1.0, opening_on_the_way=0.0)
        if world.openings[arm] < OPEN_ENOUGH:
            rise = np.array([0.0, 0.0, STEP_M * self.speed if tip[2] < HOVER_M else 0.0])
            return tip + rise, 1.0
        return self._towards(
            tip, world.objects[0, :2], OBJECT_SIZE_M / 2, opening_when_there=0.0, opening_on_the_way=1.0
        )

    def _towards(
        self, tip: np.ndarray, goal: np.ndarray, height: float, *, opening_when_there: float, opening_on_the_way: float
    ) -> tuple[np.ndarray, float]:
        distance = float(np.linalg.norm(goal - tip[:2]))
        lift = np.clip((distance - FUNNEL_START_M) / (FUNNEL_END_M - FUNNEL_START_M), 0.0, 1.0) * HOVER_M
        wanted = np.array([*goal, height + lift])
        offset = wanted - tip
        if distance > FUNNEL_END_M and tip[2] < 0.5 * HOVER_M:
            offset[:2] *= 0.3
        length = float(np.linalg.norm(offset))
        step = STEP_M * self.speed
        there = distance < CLOSE_ENOUGH_M and abs(tip[2] - height) < CLOSE_ENOUGH_M
        next_tip = wanted if length <= step else tip + offset * (step / length)
        return (tip if there else next_tip), (opening_when_there if there else opening_on_the_way)


class ScriptedPerson:
    """Drives all the time (demonstrations), or takes over when the policy is in trouble.

        watching --trouble for reaction_ticks--> driving --object in hand and lifted, or put down--> watching

    Trouble: the wrong object is in a hand, the named object is being put on the wrong place, or nothing got better for
    `patience_ticks`. Satisfies `robot_infra.interfaces.Operator`.
    """

    def __init__(self, env: SimPnp, config: InterventionConfig, *, always_drive: bool = False) -> None:
        self._env = env
        self._config = config
        self._always_drive = always_drive
        self.reset()

    def reset(self) -> None:
        """Starts a new episode, watching. Call it after the environment's reset."""
        self._rng = np.random.default_rng(self._env.episode_seed)
        self._driver = Driver(speed=float(self._rng.uniform(0.8, 1.1)))
        self._trouble_ticks = 0
        self._stuck_ticks = 0
        self._best_remaining_m = np.inf
        self._driving = self._always_drive
        self._took_over_holding = False

    @property
    def is_driving(self) -> bool:
        """Whether the person is in control at this tick."""
        return self._driving

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray | None:
        """Returns the person's command, float32 [14], or None while only watching. Call once per tick."""
        del observation, proposal  # A person beside the robot sees the table, not the policy's inputs.
        world = self._env.world
        if not self._always_drive:
            self._watch(world)
        return self._drive(world) if self._driving else None

    def judge(self, transition: Transition) -> Outcome:
        """Returns success where the named object lies on the named place, else failure."""
        return Outcome.SUCCESS if transition.success else Outcome.FAILURE

    def _drive(self, world: World) -> np.ndarray:
        """Adds a little unsteadiness to the driver's command, except where precision counts."""
        command = self._driver.command(world).reshape(NUM_ARMS, ARM_WIDTH)
        arm = active_arm(world)
        tip = kinematics.tip_position(command[arm, :-1].astype(np.float64), kinematics.BASES[arm])
        if tip[2] > STEADY_BELOW_M:
            tip = tip + self._rng.normal(0, UNSTEADINESS_M, 3)
            command[arm, :-1] = kinematics.joints_for_tip(tip, kinematics.BASES[arm])
        return command.reshape(-1)

    def _watch(self, world: World) -> None:
        remaining_m = remaining_path_m(world)
        if self._driving:
            if self._may_hand_back(world):
                self._driving = False
                self._trouble_ticks = self._stuck_ticks = 0
                self._best_remaining_m = remaining_m
            return
        if remaining_m < self._best_remaining_m - 0.004:
            self._best_remaining_m, self._stuck_ticks = remaining_m, 0
        else:
            self._stuck_ticks += 1
        in_trouble = _is_going_wrong(world) or self._stuck_ticks > self._config.patience_ticks
        self._trouble_ticks = self._trouble_ticks + 1 if in_trouble else 0
        if self._trouble_ticks >= self._config.reaction_ticks:
            self._driving, self._took_over_holding = True, 0 in world.held

    def _may_hand_back(self, world: World) -> bool:
        lifted = 0 in world.held and world.tip(int(np.flatnonzero(world.held == 0)[0]))[2] > 0.06
        return lifted and not self._took_over_holding


def active_arm(world: World) -> int:
    """Returns the arm that does the work: the one that holds something, else the one on the object's side."""
    holding = np.flatnonzero(world.held != NOBODY)
    if len(holding):
        right_one = np.flatnonzero(world.held == 0)
        return int(right_one[0]) if len(right_one) else int(holding[0])
    return 0 if world.objects[0, 0] < 0 else 1


def remaining_path_m(world: World) -> float:
    """Returns how far the hand still has to travel, in metres: what a person sees shrink while things go well."""
    arm = active_arm(world)
    tip = world.tip(arm)
    carry = float(np.linalg.norm(world.objects[0, :2] - world.scene.place_positions[0]))
    if world.held[arm] == 0:
        return carry + 0.3 * float(world.objects[0, 2])
    reach = float(np.linalg.norm(np.append(world.objects[0, :2], OBJECT_SIZE_M / 2) - tip))
    wrong = 0.5 if world.held[arm] != NOBODY else 0.0
    return 1.0 + carry + reach + wrong


def _is_going_wrong(world: World) -> bool:
    if 1 in world.held:
        return True
    if 0 in world.held:
        to_wrong = np.linalg.norm(world.scene.place_positions[1] - world.objects[0, :2])
        return bool(to_wrong < 0.07)
    for arm in range(NUM_ARMS):
        tip = world.tip(arm)
        near_wrong = np.linalg.norm(np.append(world.objects[1, :2], OBJECT_SIZE_M / 2) - tip) < 0.035
        if near_wrong and world.openings[arm] > HELD_OPENING:
            return True
    return False


def _free_spot(world: World, thing: int) -> np.ndarray:
    """Returns where to put an object that should not have been taken: towards the bases, clear of everything."""
    here = world.objects[thing, :2]
    spot = np.array([here[0], min(here[1], 0.22)])
    other = world.objects[1 - thing, :2]
    if np.linalg.norm(spot - other) < 0.09:
        spot = other + np.array([0.10 if spot[0] > other[0] else -0.10, 0.0])
    return spot
