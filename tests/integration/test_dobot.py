"""The whole of dobot_pnp by its scripts, against the emulated cell.

Collect, fine-tune, train a judge, learn online with demonstrations and by accepted episodes alone, evaluate.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.actor.free_ports import free_ports
from tools.replay.__main__ import main as replay_tool

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / "experiments" / "dobot_pnp"
PATIENCE_S = 900.0
TINY = [
    "policy=pi0_tiny", "environment.image_size=[64,64]", "environment.hz=10", "environment.save_video=false",
    "environment.max_speed=[2.2]", "environment.max_acceleration=[30]", "environment.max_jerk=[600]",
    "environment.max_jump=[10]",  # A policy after a few updates wishes anything.
    "environment.options.wait_for_after_done_time=0", "environment.options.wait_for_after_reset_time=0.5",
    "environment.options.max_tracking_error=3.0", "environment.max_episode_length=200", "training.num_gpus=0",
    "training.mixed_precision=no", "training.deepspeed_config=null", "algo.batch_size=4", "algo.optimizer.name=adamw",
    "transport.request_timeout_s=60", "actor.execution_horizon=8",
]  # fmt: skip
BASE = f"checkpoint_path={REPOSITORY / 'robot_infra' / 'assets' / 'sim_pnp_base'}"

pytestmark = pytest.mark.slow


@contextmanager
def running(arguments: list[str], *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=REPOSITORY, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def cell(directory: Path, *more: str) -> Iterator[list[str]]:
    """Runs an emulated cell; yields the overrides by which an actor finds it."""
    settings = directory / "cell.txt"
    settings.unlink(missing_ok=True)
    program = [sys.executable, "-m", "robot_infra.robots.dobot.emulator", "--settings", str(settings)]
    with running([*program, "--image_size", "64", "64", *more], log=directory / "cell.log"):
        wait_for(settings.exists, what="the emulated cell")
        time.sleep(0.5)
        yield settings.read_text().splitlines()


def wait_for(condition, *, what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"Waited too long for {what}."
        time.sleep(0.2)


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.wait(timeout=PATIENCE_S) == 0, log.read_text()[-3000:]


def script(name: str, directory: Path, *more: str) -> list[str]:
    return ["bash", str(SCRIPTS / name), *TINY, f"output_dir={directory}", *more]


def learn_online(suffix: str, directory: Path, *settings: str, run: str) -> Path:
    """Plays two episodes and makes four updates by `run_learner<suffix>` and `run_actor<suffix>`; returns the run."""
    log = directory / "log.txt"
    with cell(directory) as found:
        learner = script(
            f"run_learner{suffix}.sh", directory, *settings, "algo.max_updates=4", "algo.training_starts=1",
            "algo.publish_every=2", "dataset.min_episode_steps=1", "algo.success_threshold=-1",
            "dataset.label=measured",
        )  # fmt: skip
        network = [setting for setting in settings if setting.startswith("transport.")]
        actor = script(f"run_actor{suffix}.sh", directory, *network, *found, "actor.num_episodes=2")
        with running(learner, log=log) as learning, running(actor, log=log) as acting:
            finish(acting, log)
            finish(learning, log)
    assert json.loads((directory / run / "replay_buffer" / "meta" / "info.json").read_text())["total_episodes"] >= 2
    assert list((directory / run / "checkpoints").glob("0*"))
    return directory / run


@pytest.mark.timeout(3600)
def test_dobot_pnp_is_collected_fine_tuned_learnt_online_and_evaluated(tmp_path: Path):
    ports = free_ports(2)
    network = [f"transport.request_port={ports[0]}", f"transport.broadcast_port={ports[1]}"]
    log = tmp_path / "log.txt"
    # A person demonstrates two episodes.
    with cell(tmp_path, "--demonstrates") as found:
        learner = script("run_learner_data_collection.sh", tmp_path, *network, "algo.stop_after_episodes=2")
        actor = script("run_actor_data_collection.sh", tmp_path, *network, *found, "actor.num_episodes=2")
        with running(learner, log=log) as collecting, running(actor, log=log) as driving:
            finish(driving, log)
            finish(collecting, log)
    dataset = tmp_path / "data_collection" / "replay_buffer"
    assert json.loads((dataset / "meta" / "info.json").read_text())["total_episodes"] == 2
    # Fine-tuning on them, from the base.
    demonstrations = f"dataset.repo_id=[{dataset}]"
    tuning = script("run_learner_sft.sh", tmp_path, *network, demonstrations, BASE, "algo.max_updates=3")
    with running(tuning, log=log) as learner:
        finish(learner, log)
    [*_, checkpoint] = sorted((tmp_path / "offline_sft" / "checkpoints").glob("0*"))
    # A judge from the same episodes. It needs two successes; on a busy machine a demonstration may run out of time.
    for episode in ("0", "1"):
        assert replay_tool(["relabel", str(dataset), episode, "success", "--yes"]) == 0
    judging = script(
        "train_reward.sh", tmp_path, demonstrations, "algo.max_updates=4", "algo.classifier.evaluation_period=2"
    )
    with running(judging, log=log) as training:
        finish(training, log)
    assert list((tmp_path / "reward" / "reward_classifier").glob("*.safetensors"))
    # Online, with takeovers by the leader arms: by accepted episodes alone, and half with demonstrations.
    start = f"checkpoint_path={checkpoint / 'policy'}"
    learn_online("_reject_sampling", tmp_path, *network, start, run="rs_pi0_online")
    online = learn_online("", tmp_path, *network, demonstrations, start, run="rlpd_pi0_online")
    # Evaluation of what came out.
    [*_, checkpoint] = sorted((online / "checkpoints").glob("0*"))
    with cell(tmp_path) as found:
        evaluation = script(
            "run_actor_eval.sh", tmp_path, *found, f"checkpoint_path={checkpoint}", "evaluation.num_episodes=1",
            f"evaluation.output_dir={tmp_path / 'eval'}",
        )  # fmt: skip
        with running(evaluation, log=log) as evaluating:
            finish(evaluating, log)
    report = json.loads((tmp_path / "eval" / "report.json").read_text())
    assert report["overall"]["num_episodes"] + report["overall"]["num_unlabelled"] == 1
    assert (tmp_path / "eval" / "videos" / "episode_000.mp4").exists()
