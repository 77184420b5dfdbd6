import importlib.util
import os
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from robot_infra.envs import build
from robot_infra.envs.any_task import render_fast
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.config.loader import load
from serl_launcher.errors import ConfigError
from tools.try_tasks import shipped_simulators


class Reach(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A dot on a line that is to reach 0.5; two cameras, nested."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, render_mode: str | None = None, bounded: bool = True) -> None:
        self.render_mode = render_mode
        picture = spaces.Box(0, 255, (6, 8, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict({"top": picture}),
                "position": spaces.Box(-1, 1, (1,)),
                "goal": spaces.Box(-1, 1, (1,)),
            }
        )
        bound = 0.25 if bounded else np.inf
        self.action_space = spaces.Box(-bound, bound, (1,), np.float32)
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.position = float(self.np_random.uniform(-0.1, 0.1))
        return self._observe(), {}

    def step(self, action: np.ndarray):
        self.position += float(action[0])
        return self._observe(), -abs(self.position - 0.5), False, False, {"is_success": self.position > 0.45}

    def render(self):
        return np.full((12, 16, 3), 7, np.uint8)

    def _observe(self):
        picture = np.full((6, 8, 3), int(100 + 100 * self.position), np.uint8)
        return {
            "pixels": {"top": picture},
            "position": np.array([self.position], np.float32),
            "goal": np.array([0.5], np.float32),
        }


gymnasium.register("Reach-v0", entry_point=Reach)


def config(**options: object) -> EnvironmentConfig:
    chosen = {"id": "Reach-v0", "images": {"cam_high": "pixels/top", "cam_side": "render"}, "prompt": "reach"} | options
    return EnvironmentConfig(
        name="gymnasium", image_size=[16, 12], image_keys=list(chosen["images"]), max_episode_length=4, options=chosen
    )


def test_the_spec_comes_from_the_spaces():
    with closing(build(config(state=["position", "goal"], state_names=["x", "goal"], action_names=["dx"]))) as robot:
        assert robot.spec.state_names == ("x", "goal")
        assert robot.spec.action_names == ("dx",)
        assert (robot.spec.action_low, robot.spec.action_high) == ((-0.25,), (0.25,))
        assert robot.spec.camera_names == ("cam_high", "cam_side")


def test_pictures_come_from_the_observation_or_from_rendering():
    with closing(build(config())) as robot:
        observation = robot.reset(seed=1)
        assert {image.shape for image in observation.images.values()} == {(12, 16, 3)}
        assert (observation.images["cam_side"] == 7).all()
        assert observation.images["cam_high"].mean() > 50
        assert observation.state.shape == (2,)
        assert observation.prompt == "reach"
        assert robot.render().shape == (12, 16, 3)


def test_equal_seeds_begin_equal_episodes():
    with closing(build(config())) as robot:
        first, other, again = (robot.reset(seed=seed).state for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_success_ends_the_episode_where_the_task_would_go_on():
    with closing(build(config())) as robot:
        robot.reset(seed=1)
        steps = [robot.step(np.array([0.25], np.float32)) for _ in range(2)]
    assert (steps[-1].success, steps[-1].terminated, steps[-1].truncated) == (True, True, False)


def test_the_time_limit_is_the_configured_one():
    with closing(build(config())) as robot:
        robot.reset(seed=1)
        steps = [robot.step(np.array([0.0], np.float32)) for _ in range(4)]
    assert [step.truncated for step in steps] == [False, False, False, True]


def test_success_by_reward_where_the_task_says_nothing():
    options = {"id": "Pendulum-v1", "images": {}, "success_reward": -1e9}
    with closing(build(EnvironmentConfig(name="gymnasium", image_keys=[], options=options))) as robot:
        observation = robot.reset(seed=0)
        assert (observation.state.shape, observation.images, robot.spec.state_names) == ((3,), {}, ("s0", "s1", "s2"))
        assert robot.step(np.array([0.5], np.float32)).success


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "Reech-v0"}, "Reech"),
        ({"state": ["velocity"]}, r"no 'velocity'; it has \['goal', 'position'\]"),
        ({"module": "no_such_package"}, "needs the package no_such_package"),
        ({"wrapper": "NoSuchWrapper"}, "has no 'NoSuchWrapper'"),
        ({"idd": "x"}, "idd"),
        ({"state_names": ["x"]}, "2 state dimensions"),
        ({"make": {"bounded": False}}, "bounded actions"),
        ({"id": "CartPole-v1", "images": {}}, "continuous actions"),
    ],
)
def test_what_does_not_fit_is_said(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        build(config(**options))


def test_a_wrapper_of_gymnasium_goes_around_the_task_first():
    options = {"id": "Pendulum-v1", "images": {}, "wrapper": "RescaleAction"}
    with pytest.raises(TypeError, match="min_action"):
        build(EnvironmentConfig(name="gymnasium", image_keys=[], options=options))
    options["wrapper"] = "gymnasium.wrappers.FlattenObservation"
    with closing(build(EnvironmentConfig(name="gymnasium", image_keys=[], options=options))) as robot:
        assert robot.spec.state_dim == 3


def test_cameras_must_be_those_of_the_configuration():
    with pytest.raises(ConfigError, match="image_keys"):
        build(EnvironmentConfig(name="gymnasium", image_keys=["cam"], options={"id": "Reach-v0"}))


@pytest.mark.parametrize("path", ["model", "_env.physics.model"])
def test_shadows_and_multisampling_go_wherever_a_simulator_keeps_its_model(path: str):
    model = SimpleNamespace(
        light_castshadow=np.ones(3, np.int32), vis=SimpleNamespace(quality=SimpleNamespace(offsamples=4))
    )
    task, held = Reach(), model
    for name in reversed(path.split(".")[1:]):
        held = SimpleNamespace(**{name: held})
    setattr(task, path.partition(".")[0], held)
    render_fast(task)
    assert (model.light_castshadow.tolist(), model.vis.quality.offsamples) == ([0, 0, 0], 0)
    render_fast(Reach())


PACKAGES = {"libero": "libero", "maniskill_pick_cube": "mani_skill"}
"""What tasks need whose module is one of ours."""
NEEDS_OPENGL = ("aloha_transfer_cube", "panda_pick_cube", "libero")
NEEDS_MORE = ("libero",)
"""Needs what no package brings: its meshes from the network."""


def package_of(task: str) -> str:
    """Returns the package that a shipped task needs beside ours."""
    module = load([f"task={task}"]).environment.options.get("module", "")
    return PACKAGES.get(task, module.partition(".")[0] or "gymnasium")


@pytest.mark.parametrize("task", [task for task in shipped_simulators() if task != "sim_pnp"])
@pytest.mark.filterwarnings("ignore")
def test_shipped_tasks_take_fifty_steps(task: str):
    if importlib.util.find_spec(package_of(task)) is None:
        pytest.skip(f"{package_of(task)} is not installed (extra `tasks`)")
    if task in NEEDS_OPENGL and os.environ.get("MUJOCO_GL") not in ("egl", "osmesa"):
        pytest.skip("needs OpenGL: set MUJOCO_GL=egl or osmesa")
    try:
        robot = build(load([f"task={task}"]).environment)
    except ConfigError as exc:
        if task not in NEEDS_MORE:
            raise
        pytest.skip(str(exc))
    with closing(robot):
        low, high = robot.spec.action_bounds()
        rng = np.random.default_rng(0)
        observation = robot.reset(seed=0)
        for step in range(50):
            assert observation.state.shape == (robot.spec.state_dim,)
            assert np.isfinite(observation.state).all()
            assert set(observation.images) == set(robot.spec.camera_names)
            transition = robot.step(rng.uniform(low, high).astype(np.float32))
            observation = transition.observation
            if transition.terminated or transition.truncated:
                observation = robot.reset(seed=step)
