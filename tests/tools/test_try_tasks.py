import importlib.util
import os
import sys
from pathlib import Path

import pytest

from serl_launcher.config.loader import group_choices
from tests.robot_infra.envs.test_any_task import NEEDS_MORE, NEEDS_OPENGL, package_of
from tools.try_tasks import STEPS, Tried, attempt, shipped_simulators


def test_every_shipped_task_is_tried_but_those_of_metal():
    assert set(group_choices()["task"]) - set(shipped_simulators()) == {"dobot_pnp", "so101"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", shipped_simulators())
def test_fifty_steps_go_through_a_real_actor_and_a_real_learner(task: str, tmp_path: Path):
    if importlib.util.find_spec(package_of(task)) is None:
        pytest.skip(f"{package_of(task)} is not installed")
    if task in NEEDS_OPENGL and os.environ.get("MUJOCO_GL") not in ("egl", "osmesa"):
        pytest.skip("needs OpenGL: set MUJOCO_GL=egl or osmesa")
    tried = attempt(task, tmp_path, python=sys.executable, overrides=[], timeout_s=240.0)
    if tried.trouble and task in NEEDS_MORE:
        pytest.skip(tried.trouble)
    assert (tried.trouble, tried.num_steps, tried.num_episodes) == ("", STEPS, 1)


def test_trouble_is_said_in_a_line():
    tried = Tried(task="libero", num_steps=0, num_episodes=0, num_cameras=0, seconds=0.0, trouble="no meshes")
    assert tried.line.split(maxsplit=1) == ["libero", "NOT DONE: no meshes"]
