import shutil
from pathlib import Path

import pytest

from serl_launcher.config import load
from tests.scripts.test_scripts import NAMES, ROOT, overrides_of, run

SCRIPTS = sorted((ROOT / "experiments" / "dobot_pnp").glob("*.sh"))


def test_the_task_has_every_script_of_the_reference():
    assert {script.name for script in SCRIPTS} == NAMES | {"train_reward.sh"}


@pytest.mark.parametrize("script", [ROOT / "start_dobot.sh", ROOT / "experiments" / "dobot_pnp" / "train_reward.sh"])
def test_they_are_valid_bash(script: Path):
    assert run("bash", "-n", str(script)).stderr == ""
    if shutil.which("shellcheck"):
        assert run("shellcheck", str(script)).stdout == ""


def test_start_dobot_shows_its_two_commands():
    result = run("bash", "start_dobot.sh", "--dry-run", "unique_identifier=my run")
    assert "left:  bash experiments/dobot_pnp/run_actor.sh unique_identifier=my\\ run" in result.stdout
    assert "right: bash experiments/dobot_pnp/run_learner.sh" in result.stdout


def test_the_reward_model_is_trained_by_its_own_algorithm():
    config = load(overrides_of(ROOT / "experiments" / "dobot_pnp" / "train_reward.sh"))
    assert config.algo.name == "reward_classifier"


def test_the_robot_is_the_one_of_the_reference():
    config = load(["task=dobot_pnp"])
    assert config.environment.image_size == [298, 224]
    assert config.environment.image_keys == ["cam_high", "cam_left_wrist", "cam_right_wrist"]
    assert (config.environment.hz, config.algo.success_threshold) == (10, 0.7)
    assert config.actor.rewards.sources == ["keyboard"]
