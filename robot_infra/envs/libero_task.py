"""One task of LIBERO (hf-libero) as a Gymnasium task; importing this module registers `hiors/Libero-v0`.

LIBERO downloads its meshes when it is first used, and asks a question on the terminal when it is first imported; do
both once by hand (see robot_infra/README.md).
"""

import importlib
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from serl_launcher.errors import ConfigError

STATE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
STATE_DIM = 9
ACTION_DIM = 7
IMAGES = {"agentview": "agentview_image", "eye_in_hand": "robot0_eye_in_hand_image"}
NUM_SETTLING = 10
"""Ticks after a reset until all that falls has fallen; LIBERO's own evaluation waits as long."""
GRIPPER_OPEN = np.array([0.0] * 6 + [-1.0], np.float32)


class Simulator(Protocol):
    """What is used of LIBERO's `OffScreenRenderEnv`."""

    def seed(self, seed: int) -> None: ...

    def reset(self) -> dict[str, np.ndarray]: ...

    def set_init_state(self, state: np.ndarray) -> dict[str, np.ndarray]: ...

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]: ...

    def check_success(self) -> bool: ...

    def close(self) -> None: ...


class LiberoTask(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Observations `{"agentview", "eye_in_hand": images, "state": [9]}`; actions are small motions of the hand.

    The state is position [3] in metres, orientation as quaternion x, y, z, w, and the two fingers in metres.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(
        self, simulator: Simulator, *, start_states: np.ndarray, prompt: str, image_size: int, render_mode: str | None
    ) -> None:
        """Wraps a simulator.

        Args:
            simulator: LIBERO's environment.
            start_states: The task's fixed start states [N, D]; an episode's seed chooses one.
            prompt: What the task asks for.
            image_size: Width and height of its pictures.
            render_mode: `rgb_array`, or None.
        """
        self._simulator, self._start_states, self.prompt = simulator, start_states, prompt
        self.render_mode = render_mode
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        state = spaces.Box(-np.inf, np.inf, (STATE_DIM,), np.float32)
        self.observation_space = spaces.Dict({**dict.fromkeys(IMAGES, picture), "state": state})
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self._picture = np.zeros(picture.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins at the start state that the seed chooses."""
        super().reset(seed=seed, options=options)
        self._simulator.seed(0 if seed is None else seed)
        self._simulator.reset()
        observation = self._simulator.set_init_state(self._start_states[(seed or 0) % len(self._start_states)])
        for _ in range(NUM_SETTLING):
            observation, _, _, _ = self._simulator.step(GRIPPER_OPEN)
        return self._translated(observation), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Plays one tick of 1/20 s."""
        observation, reward, _, _ = self._simulator.step(action)
        success = bool(self._simulator.check_success())
        return self._translated(observation), float(reward), success, False, {"is_success": success}

    def render(self) -> Any:  # Any: Gymnasium's own signature.
        """Returns what the fixed camera sees."""
        return self._picture

    def close(self) -> None:
        """Frees the simulator."""
        self._simulator.close()

    def _translated(self, observation: dict[str, np.ndarray]) -> dict[str, Any]:
        # The pictures come turned by half a turn; policies trained on LIBERO's data expect them upright.
        images = {name: np.ascontiguousarray(observation[key][::-1, ::-1]) for name, key in IMAGES.items()}
        self._picture = images["agentview"]
        state = np.concatenate([observation[key] for key in STATE]).astype(np.float32)
        return {**images, "state": state}


def make(
    *, suite: str = "libero_object", task_number: int = 0, image_size: int = 256, render_mode: str | None = None
) -> LiberoTask:
    """Returns a task of LIBERO.

    Raises:
        ConfigError: There is no such suite or task, or LIBERO's meshes are missing.
    """
    libero = importlib.import_module("libero.libero")
    suites = importlib.import_module("libero.libero.benchmark").get_benchmark_dict()
    if suite not in suites:
        raise ConfigError(f"environment.options.make.suite must be one of {sorted(suites)}, got {suite!r}.")
    tasks = suites[suite]()
    if not 0 <= task_number < tasks.n_tasks:
        raise ConfigError(f"{suite} has the tasks 0 to {tasks.n_tasks - 1}, got task_number={task_number}.")
    task = tasks.get_task(task_number)
    description = Path(libero.get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file
    try:
        simulator = importlib.import_module("libero.libero.envs").OffScreenRenderEnv(
            bddl_file_name=str(description), camera_heights=image_size, camera_widths=image_size
        )
    except FileNotFoundError as exc:
        raise ConfigError(
            f"LIBERO's files are incomplete: {exc.filename} is missing. It downloads them from the Hugging Face Hub "
            "when it is first used; do that once on a machine with network."
        ) from exc
    return LiberoTask(
        simulator, start_states=np.asarray(tasks.get_task_init_states(task_number)), prompt=task.language,
        image_size=image_size, render_mode=render_mode,
    )  # fmt: skip


gymnasium.register("hiors/Libero-v0", entry_point=f"{__name__}:make")
