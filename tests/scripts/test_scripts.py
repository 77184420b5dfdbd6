import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from serl_launcher.config import load

ROOT = Path(__file__).resolve().parents[2]
LONG_RUN = ROOT / "experiments" / "sim_pnp" / "run_long.sh"
"""Starts the demo, not one process: its arguments are the demo's."""
RUN_SCRIPTS = sorted(set((ROOT / "experiments").glob("*/run_*.sh")) - {LONG_RUN})
ALL_SCRIPTS = [
    *RUN_SCRIPTS,
    LONG_RUN,
    ROOT / "experiments" / "sim_pnp" / "openpi_client.sh",
    ROOT / "start_sim.sh",
    ROOT / ".ci" / "run",
    *sorted((ROOT / "tools").glob("*.sh")),
]
NAMES = {
    "run_learner.sh",
    "run_actor.sh",
    "run_actor_data_collection.sh",
    "run_learner_data_collection.sh",
    "run_learner_sft.sh",
    "run_actor_reject_sampling.sh",
    "run_learner_reject_sampling.sh",
    "run_actor_eval.sh",
}


def run(*command: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def overrides_of(script: Path) -> list[str]:
    return re.findall(r"^    (\S+=\S+) \\$", script.read_text(), flags=re.MULTILINE)


def test_every_script_that_users_know_exists() -> None:
    assert {script.name for script in RUN_SCRIPTS} >= NAMES


@pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_valid_bash(script: Path) -> None:
    assert run("bash", "-n", str(script)).stderr == ""


@pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_clean_for_shellcheck(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    assert run(shellcheck, str(script)).stdout == ""


@pytest.mark.parametrize("script", RUN_SCRIPTS, ids=lambda script: script.name)
def test_the_overrides_of_every_script_compose(script: Path) -> None:
    overrides = overrides_of(script)
    assert overrides
    assert load(overrides).unique_identifier == dict(item.split("=", 1) for item in overrides)["unique_identifier"]


@pytest.mark.parametrize("script", RUN_SCRIPTS, ids=lambda script: script.name)
def test_scripts_run_from_anywhere_and_hand_overrides_on(script: Path, tmp_path: Path) -> None:
    result = run("bash", str(script), "--cfg", "seed=7531", cwd=tmp_path, PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    assert "seed: 7531" in result.stdout


def test_start_sim_shows_its_two_commands() -> None:
    result = run("bash", "start_sim.sh", "--dry-run", "unique_identifier=my run")
    assert "left:  bash experiments/sim_pnp/run_actor.sh unique_identifier=my\\ run" in result.stdout
    assert "right: bash experiments/sim_pnp/run_learner.sh" in result.stdout


def test_start_sim_without_tmux_says_what_to_do(tmp_path: Path) -> None:
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    result = run("bash", "start_sim.sh", PATH=str(tmp_path))
    assert result.returncode == 1
    assert "apt-get install tmux" in result.stderr
    assert "experiments/sim_pnp/run_learner.sh" in result.stderr


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_second_start_leaves_the_first_session_alone(tmp_path: Path) -> None:
    # A tmux server and a run of its own, so that nobody's session is touched.
    place = {"TMUX_TMPDIR": str(tmp_path), "TMUX": "", "PYTHON": "true"}
    name = f"unique_identifier=test-{uuid.uuid4().hex[:8]}"
    try:
        first = run("bash", "start_sim.sh", name, **place)
        assert "is started" in first.stdout, first.stderr
        before = run("tmux", "list-panes", "-t", "hiors_sim_pnp", "-F", "#{pane_pid}", **place).stdout
        assert len(before.splitlines()) == 2
        second = run("bash", "start_sim.sh", name, **place)
        assert second.returncode == 0
        assert "running already" in second.stdout
        assert "tmux attach -t hiors_sim_pnp" in second.stdout
        assert run("tmux", "list-panes", "-t", "hiors_sim_pnp", "-F", "#{pane_pid}", **place).stdout == before
    finally:
        run("tmux", "kill-server", **place)
