"""`sim_pnp`: two arms, two objects, two places and an instruction. Seeded, deterministic, drawn without OpenGL."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.render import HIGH_CAMERA, SCENE_CAMERA, Drawing, wrist_camera
from robot_infra.envs.sim_pnp.scenes import TASK, Catalogue, draw_scene
from robot_infra.envs.sim_pnp.world import ARM_WIDTH, NUM_ARMS, World

CAMERA_NAMES = ("cam_high", "cam_left_wrist", "cam_right_wrist")
PROMPT_CHARACTERS = "abcdefghijklmnopqrstuvwxyz "
JOINT_NAMES = tuple(
    f"{side}_{name}" for side in ("left", "right") for name in (*(f"j{i}" for i in range(6)), "gripper")
)


class SimPnp(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Pick the named object up and put it on the named place.

    Observation: `cam_high`, `cam_left_wrist`, `cam_right_wrist` uint8 (height, width, 3); `state` float32 [14], the
    measured joints in radians and grippers in [0, 1], as in `JOINT_NAMES`; `prompt`, the instruction.
    Action: float32 [14], joint targets in radians and gripper openings. Joints and grippers have a speed limit.
    Reward: 1 at the tick at which the named object rests on the named place, which terminates; an object on a place
    where it does not belong terminates with 0. `info["success"]` repeats it.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention
    action_space: spaces.Box

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (64, 64),
        max_episode_length: int = 100,
        catalogue: Catalogue = TASK,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.image_size = image_size
        self.max_episode_length = max_episode_length
        self.catalogue = catalogue
        self.render_mode = render_mode
        width, height = image_size
        image = spaces.Box(0, 255, (height, width, 3), np.uint8)
        low = np.tile([*kinematics.JOINT_LOW, 0.0], NUM_ARMS).astype(np.float32)
        high = np.tile([*kinematics.JOINT_HIGH, 1.0], NUM_ARMS).astype(np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = spaces.Dict(
            {
                **dict.fromkeys(CAMERA_NAMES, image),
                "state": spaces.Box(low - 0.01, high + 0.01, (NUM_ARMS * ARM_WIDTH,), np.float32),
                "prompt": spaces.Text(120, charset=PROMPT_CHARACTERS),
            }
        )
        self.world: World
        self.episode_seed = 0
        """Seed for whoever takes part in the episode, e.g. the person."""
        self.num_ticks = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draws a scene from the seed; equal seeds give equal episodes under equal actions."""
        super().reset(seed=seed)
        self.world = World(scene=draw_scene(self.catalogue, self.np_random), rng=self.np_random)
        self.episode_seed = int(self.np_random.integers(2**31))
        self.num_ticks = 0
        return self._observation(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Moves by one tick (0.1 s)."""
        self.world.advance(np.clip(action, self.action_space.low, self.action_space.high))
        self.num_ticks += 1
        success = self.world.is_success()
        terminated = success or self.world.is_lost()
        truncated = not terminated and self.num_ticks >= self.max_episode_length
        return self._observation(), float(success), terminated, truncated, {"success": success}

    def render(self) -> np.ndarray:
        """Returns the table from the front above the three cameras, uint8 (480, 480, 3)."""
        scene = Drawing(self.world).seen_by(SCENE_CAMERA, (480, 320))
        strip = np.concatenate(list(self._images((160, 160)).values()), axis=1)
        return np.concatenate([scene, strip], axis=0)

    def _observation(self) -> dict[str, Any]:
        return {**self._images(self.image_size), "state": self.world.state(), "prompt": self.world.scene.prompt}

    def _images(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        cameras = [HIGH_CAMERA, *(wrist_camera(self.world.joints[i], kinematics.BASES[i]) for i in range(NUM_ARMS))]
        drawing = Drawing(self.world)
        return {name: drawing.seen_by(camera, size) for name, camera in zip(CAMERA_NAMES, cameras, strict=True)}
