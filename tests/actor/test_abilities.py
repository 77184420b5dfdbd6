import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from actor.abilities import abilities, tell
from serl_launcher.config.loader import load
from serl_launcher.errors import ConfigError
from tests.actor.test_process import overrides

BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "av", "lerobot", "pyarrow", "cv2", "matplotlib", "pygame", "hid"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import importlib.util
find = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return find(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
from serl_launcher.config.loader import run_main
from actor.__main__ import main
run_main(main)
"""


def bare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs an actor where neither torch nor a display, a terminal or a device is to be found."""
    return subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, timeout=110, check=False,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_an_actor_without_torch_display_or_devices_works_and_says_what_is_missing(tmp_path: Path):
    done = bare(*overrides(tmp_path, "actor.mode=collect", "actor.num_episodes=1", "environment.realtime_factor=0"))
    assert done.returncode == 0, done.stderr
    assert "The actor works without what this machine lacks" in done.stderr
    for what in ("torch", "av", "lerobot", "terminal", "display"):
        assert f"\n    {what} " in done.stderr
    assert "1 episodes finished" in done.stderr


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("actor.policy=local", "torch"),
        ("actor.mode=eval", "torch"),
        ("actor.rewards.sources=[classifier]", "torch"),
        ("actor.rewards.sources=[process]", "torch"),
        ("environment.save_video=true", "av"),
    ],
)
def test_what_needs_a_missing_package_ends_with_one_line(setting: str, what: str):
    config = load([setting])
    lacking = [replace(ability, is_there=False) for ability in abilities() if ability.what == what]
    with pytest.raises(ConfigError, match=rf"{re.escape(setting)} needs {what}.*pip install"):
        tell(config, lambda: lacking)


def test_a_machine_with_everything_is_told_nothing(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        tell(load([]), list)
    assert not caplog.records
