"""The adapter, around a stand-in for LIBERO's simulator; the real one is in `test_any_task` where it is installed."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robot_infra.envs.libero_task import LiberoTask


@dataclass
class StandIn:
    solved_after: int = 15
    num_steps: int = 0
    start: float = 0.0
    seeds: list[int] = field(default_factory=list)

    def seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def reset(self):
        self.num_steps = 0
        return self._observe()

    def set_init_state(self, state: np.ndarray):
        self.start = float(state[0])
        return self._observe()

    def step(self, action: np.ndarray):
        self.num_steps += 1
        return self._observe(), 0.0, False, {}

    def check_success(self) -> bool:
        return self.num_steps >= self.solved_after

    def close(self) -> None:
        pass

    def _observe(self):
        picture = np.zeros((8, 8, 3), np.uint8)
        picture[0, 0] = 255
        return {
            "agentview_image": picture, "robot0_eye_in_hand_image": picture, "robot0_eef_pos": np.full(3, self.start),
            "robot0_eef_quat": np.array([0.0, 0, 0, 1]), "robot0_gripper_qpos": np.array([0.02, -0.02]),
        }  # fmt: skip


def task(simulator: StandIn) -> LiberoTask:
    starts = np.array([[0.1], [0.2], [0.3]])
    return LiberoTask(simulator, start_states=starts, prompt="do it", image_size=8, render_mode="rgb_array")


@pytest.mark.filterwarnings("ignore:.*infinity:UserWarning")
def test_it_is_a_gymnasium_task():
    check_env(task(StandIn()), skip_render_check=True)


def test_the_seed_chooses_the_start_state_and_things_have_settled():
    wrapped = task(StandIn())
    states = [wrapped.reset(seed=seed)[0]["state"][0] for seed in (0, 1, 4)]
    np.testing.assert_allclose(states, [0.1, 0.2, 0.2])
    assert wrapped._simulator.num_steps == 10


def test_pictures_are_upright():
    observation, _ = task(StandIn()).reset(seed=0)
    assert observation["agentview"][-1, -1, 0] == 255
    assert observation["agentview"][0, 0, 0] == 0


def test_success_is_the_simulators():
    wrapped = task(StandIn(solved_after=12))
    wrapped.reset(seed=0)
    ends = [wrapped.step(np.zeros(7, np.float32))[2] for _ in range(2)]
    assert ends == [False, True]
