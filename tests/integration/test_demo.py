"""The main job as a user starts it, in a hurry, with every process killed once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serl_launcher.status import read_status
from tools.demo.state import DemoState
from tools.episodes import EpisodeTable

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 240.0


def demo_command(output: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tools.demo",
        "--quick",
        "--online-seconds=30",
        f"--output={output}",
        "training.checkpoint_period=20",
        "algo.publish_every=10",
        "algo.batch_size=8",
    ]


@pytest.fixture
def demo(tmp_path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    with (tmp_path / "terminal.txt").open("wb") as terminal:
        process = subprocess.Popen(
            demo_command(tmp_path / "run"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != "HF_LEROBOT_HOME"},
        )
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", terminal: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, terminal.read_text()
        assert time.monotonic() < deadline, terminal.read_text()
        time.sleep(0.2)


def status_of(run: Path, name: str) -> dict[str, object]:
    return dict(read_status(run / "status" / f"{name}.json") or {})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_demo_whose_processes_are_killed_ends_with_a_correct_report(
    tmp_path: Path, demo: "subprocess.Popen[bytes]"
) -> None:
    output, terminal = tmp_path / "run", tmp_path / "terminal.txt"
    online = output / "run_online"
    for victim in ("trainer", "server", "actor-actor-0"):
        wait_until(lambda: bool(EpisodeTable(online / "replay_buffer").read()), demo, terminal)
        pid = status_of(online, victim)["pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda v=victim, p=pid: status_of(online, v).get("pid") not in (None, p), demo, terminal)
    demo.wait(DEADLINE_S)
    assert demo.returncode == 0, terminal.read_text()
    report = (output / "report.md").read_text()
    rows = EpisodeTable(online / "replay_buffer").read()
    assert [row.episode_index for row in rows] == sorted({row.episode_index for row in rows})
    assert f"| online | {len(rows)} |" in report
    for name in ("success_curve.png", "before.mp4", "after.mp4"):
        assert (output / name).stat().st_size > 0
        assert str(output / name) in terminal.read_text()
    assert {"collect", "sft", "eval_sft", "online", "eval_online"} <= set(DemoState.read(output).phases)
    check_with_lerobot(online / "replay_buffer")


def check_with_lerobot(root: Path) -> None:
    code = (
        "import sys; from lerobot.datasets.lerobot_dataset import LeRobotDataset as D; "
        "d = D('replay_buffer', root=sys.argv[1]); d[0]; d[len(d) - 1]"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
