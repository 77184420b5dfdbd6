"""The published openpi-client 0.1.2 against our endpoint, each in its own environment: the client wants numpy 1."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from learner.serve.packing import pack
from serl_launcher.policies.any_policy import load_any_policy
from serl_launcher.transforms.images import resize_with_pad
from tests.learner.serve.serving import serving
from tools.compare_evaluations import read_played

ROOT = Path(__file__).parents[3]
BASE_POLICY = ROOT / "robot_infra" / "assets" / "sim_pnp_base"
SCRIPT = Path(__file__).with_name("drive_with_openpi_client.py")
PYTHON_VARIABLE = "OPENPI_CLIENT_PYTHON"
"""Names a Python that has openpi-client 0.1.2 and what sim_pnp needs; without it the test installs one."""
SHAPES = [(720, 1280), (180, 320), (480, 640), (100, 50), (224, 224)]


@pytest.fixture(name="client_python", scope="module")
def fixture_client_python(tmp_path_factory):
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        return named
    directory = tmp_path_factory.mktemp("openpi-client")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = directory / "bin" / "python"
    # The client imports typing_extensions without requiring it; the rest is what the simulator needs.
    packages = ["openpi-client==0.1.2", "typing_extensions", "gymnasium", "hydra-core", "msgspec"]
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"openpi-client cannot be installed here: {installed.stderr[-300:]}")
    return str(python)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_published_client_drives_whole_episodes(client_python):
    with serving(api_key="k") as port:
        finished = subprocess.run(
            [client_python, str(SCRIPT), str(port), "k"], capture_output=True, text=True, timeout=300,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    got = json.loads(finished.stdout.splitlines()[-1])
    assert got["metadata"]["robot"] == "two_joints"
    # A chunk repeats the state that it was asked with, and three of its actions are executed.
    assert got["executed"] == [number // 3 * 3 / 16 for number in range(12)]
    assert (got["shape"], got["dtype"]) == ([4, 2], "float32")
    assert got["timings"] == ["infer_ms", "prev_total_ms"]
    assert got["error"].startswith("Error in inference server:\nTraceback")
    assert got["after"] == "ConnectionClosedError 1011"
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]
    assert got["sums"] == [int(resize_with_pad(image, 224, 224).astype(np.int64).sum()) for image in images]
    assert got["packed"] == pack({"a": np.arange(6.0).reshape(2, 3), "b": np.float64(2)}).hex()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_published_client_plays_whole_episodes_of_the_simulator(client_python, tmp_path):
    with serving(load_any_policy(BASE_POLICY)) as port:
        command = [
            client_python, str(ROOT / "experiments" / "sim_pnp" / "drive_with_openpi.py"), "--port", str(port),
            "--episodes", "3", "--first-seed", "7", "--max-episode-length", "20", "--output", str(tmp_path),
        ]  # fmt: skip
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=300,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    with (tmp_path / "episodes.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [int(row["seed"]) for row in rows] == [7, 8, 9]
    assert all(row["success"] == "True" or int(row["num_steps"]) <= 20 for row in rows)
    assert read_played(tmp_path).keys() == {(int(row["seed"]), row["prompt"]) for row in rows}
