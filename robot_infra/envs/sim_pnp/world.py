"""What happens on the table of `sim_pnp`: arms follow commands, fingers grasp, miss, slip and drop."""

from dataclasses import dataclass, field

import numpy as np

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.scenes import Scene

NUM_ARMS = 2
ARM_WIDTH = kinematics.NUM_JOINTS + 1
JOINT_STEP_RAD = 0.22
"""Most that a joint moves in one tick."""
GRIPPER_STEP = 0.6
OBJECT_SIZE_M = 0.034
PLACE_RADIUS_M = 0.052
HELD_OPENING = 0.45
"""Opening at which the fingers meet an object."""
OPEN_ENOUGH = 0.7
GRASP_REACH_M = 0.024
"""Horizontal offset beyond which closing fingers miss."""
FIRM_REACH_M = 0.014
"""Offset up to which a grasp never slips."""
GRASP_HEIGHT_M = 0.022
SLIP_PER_TICK = 0.10
"""Chance per moving tick that the loosest grasp slips."""
HOME_TIP = np.array([0.0, 0.15, 0.17])
"""Tip at reset, relative to the arm's base."""
NOBODY = -1


@dataclass(kw_only=True, slots=True)
class World:
    """State of the table. Arm 0 is left; the target is object 0, the goal place 0."""

    scene: Scene
    rng: np.random.Generator
    joints: np.ndarray = field(default_factory=lambda: np.stack([home_joints(arm) for arm in range(NUM_ARMS)]))
    """[2, 6] in radians."""
    openings: np.ndarray = field(default_factory=lambda: np.ones(NUM_ARMS))
    """[2], 1 is open."""
    objects: np.ndarray = field(init=False)
    """[2, 3], centres in metres."""
    held: np.ndarray = field(default_factory=lambda: np.full(NUM_ARMS, NOBODY))
    """[2], object in each gripper or NOBODY."""
    grasp_offsets: np.ndarray = field(default_factory=lambda: np.zeros((NUM_ARMS, 2)))
    num_slips: int = 0
    num_misses: int = 0

    def __post_init__(self) -> None:
        heights = np.full((2, 1), OBJECT_SIZE_M / 2)
        self.objects = np.concatenate([self.scene.object_positions, heights], axis=1)
        if self.scene.start_tip is not None:
            self._start_at(self.scene.start_tip)

    def _start_at(self, tip: np.ndarray) -> None:
        arm = 0 if self.objects[0, 0] < 0 else 1
        self.joints[arm] = kinematics.joints_for_tip(tip, kinematics.BASES[arm])
        if self.scene.starts_closed:
            self.openings[arm] = 0.0
        if self.scene.starts_holding:
            self.held[arm], self.openings[arm] = 0, HELD_OPENING
            self.grasp_offsets[arm] = self.rng.normal(0, 0.004, 2)
            self._carry(arm, moved_m=0.0)

    def state(self) -> np.ndarray:
        """Returns what the encoders read, float32 [14]: left joints, left gripper, right joints, right gripper."""
        return np.concatenate([self.joints, self.openings[:, None]], axis=1).reshape(-1).astype(np.float32)

    def tip(self, arm: int) -> np.ndarray:
        """Returns the point between the fingers of an arm, [3] in metres."""
        return kinematics.tip_position(self.joints[arm], kinematics.BASES[arm])

    def is_resting(self, thing: int) -> bool:
        """Whether an object lies on the table or a place."""
        return thing not in self.held

    def place_under(self, thing: int) -> int:
        """Returns the place on which an object lies, or NOBODY."""
        distances = np.linalg.norm(self.scene.place_positions - self.objects[thing, :2], axis=1)
        nearest = int(np.argmin(distances))
        return nearest if self.is_resting(thing) and distances[nearest] < PLACE_RADIUS_M else NOBODY

    def is_success(self) -> bool:
        """The named object lies on the named place."""
        return self.place_under(0) == 0

    def is_lost(self) -> bool:
        """Some object lies on a place where it does not belong: the episode cannot succeed any more."""
        return self.place_under(0) == 1 or self.place_under(1) != NOBODY

    def advance(self, command: np.ndarray) -> None:
        """Moves everything by one tick towards a command [14] within the limits."""
        wanted = command.reshape(NUM_ARMS, ARM_WIDTH).astype(np.float64)
        before = [self.tip(arm) for arm in range(NUM_ARMS)]
        target = np.clip(wanted[:, :-1], kinematics.JOINT_LOW, kinematics.JOINT_HIGH)
        self.joints = self.joints + np.clip(target - self.joints, -JOINT_STEP_RAD, JOINT_STEP_RAD)
        for arm in range(NUM_ARMS):
            self._keep_above_table(arm)
            self._move_gripper(arm, float(np.clip(wanted[arm, -1], 0.0, 1.0)))
            self._carry(arm, moved_m=float(np.linalg.norm(self.tip(arm) - before[arm])))

    def _keep_above_table(self, arm: int) -> None:
        tip = self.tip(arm)
        if tip[2] < 0.008:
            tip[2] = 0.008
            wrist_yaw_roll = self.joints[arm, 4:].copy()
            self.joints[arm] = kinematics.joints_for_tip(tip, kinematics.BASES[arm])
            self.joints[arm, 4:] = wrist_yaw_roll

    def _move_gripper(self, arm: int, wanted: float) -> None:
        was = self.openings[arm]
        opening = was + np.clip(wanted - was, -GRIPPER_STEP, GRIPPER_STEP)
        if self.held[arm] != NOBODY:
            if opening > HELD_OPENING + 0.1:
                self._drop(arm)
            else:
                opening = HELD_OPENING
        elif was > HELD_OPENING >= opening and self._try_grasp(arm):
            opening = HELD_OPENING
        self.openings[arm] = opening

    def _try_grasp(self, arm: int) -> bool:
        tip = self.tip(arm)
        for thing in range(2):
            offset = self.objects[thing, :2] - tip[:2]
            if thing in self.held or abs(self.objects[thing, 2] - tip[2]) > GRASP_HEIGHT_M:
                continue
            distance = float(np.linalg.norm(offset))
            if distance < GRASP_REACH_M:
                self.held[arm], self.grasp_offsets[arm] = thing, offset
                return True
            if distance < 0.045:
                self.objects[thing, :2] += 0.012 * offset / distance + self.rng.normal(0, 0.003, 2)
                self.num_misses += 1
        return False

    def _carry(self, arm: int, *, moved_m: float) -> None:
        thing = int(self.held[arm])
        if thing == NOBODY:
            return
        tip = self.tip(arm)
        self.objects[thing] = (*(tip[:2] + self.grasp_offsets[arm]), max(tip[2], OBJECT_SIZE_M / 2))
        looseness = (np.linalg.norm(self.grasp_offsets[arm]) - FIRM_REACH_M) / (GRASP_REACH_M - FIRM_REACH_M)
        if looseness > 0 and moved_m > 0.004 and self.rng.random() < SLIP_PER_TICK * looseness:
            self.num_slips += 1
            self._drop(arm)

    def _drop(self, arm: int) -> None:
        thing = int(self.held[arm])
        self.held[arm] = NOBODY
        fall_m = self.objects[thing, 2] - OBJECT_SIZE_M / 2
        self.objects[thing, :2] += self.rng.normal(0, 0.2 * fall_m, 2)
        self.objects[thing, 2] = OBJECT_SIZE_M / 2


def home_joints(arm: int) -> np.ndarray:
    """Returns the joints [6] at reset."""
    base = kinematics.BASES[arm]
    return kinematics.joints_for_tip(base + HOME_TIP, base)
