"""Real ranks: processes that meet through gloo, as on GPUs through NCCL."""

import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from learner.trainer.build import build_trainer
from learner.trainer.checkpoints import Checkpoints, read_state
from serl_launcher.run_directory import RunDirectory
from serl_launcher.types import Outcome

GEMMA = "width=16 depth=1 mlp_dim=16 num_heads=2 num_kv_heads=1 head_dim=8"
VISION = "image_size=16 patch_size=8 width=16 depth=1 mlp_dim=16 num_heads=2"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

LAUNCHER = ("learner.launcher", "2", "learner.trainer")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "learner.trainer")


@pytest.fixture(name="sft")
def fixture_sft(run):
    run.record(*[Outcome.SUCCESS] * 3, root=run.demonstrations)
    run.config.algo.optimizer.ema = 0.9
    # AdamW turns a gradient's rounding error at zero into a step of full size; a larger eps does not.
    run.config.algo.optimizer.eps = 1e-4
    return run


def overrides(run, tokenizer_path, name, *more, algo="sft_pi0"):
    policy = [f"policy.{part}.{item}" for part in ("language", "expert") for item in GEMMA.split()]
    policy += [f"policy.vision.{item}" for item in VISION.split()]
    policy += [
        f"policy.tokenizer_path={tokenizer_path}", "policy.vocab_size=64", "policy.max_token_len=16",
        "policy.horizon=4", "policy.max_state_dim=3", "policy.max_action_dim=3", "policy.num_steps=2",
        "policy.delta_actions=false",
    ]  # fmt: skip
    return [
        *([] if algo == "sac" else policy), f"output_dir={run.config.output_dir}", f"unique_identifier={name}",
        f"dataset.repo_id=[{run.demonstrations}]", "dataset.noop_threshold=0", f"algo={algo}", "algo.batch_size=4",
        "algo.max_updates=6",
        "algo.publish_every=2", "algo.noise_samples=1", "algo.optimizer.name=adamw", "algo.optimizer.lr=1e-3",
        "algo.optimizer.num_warmup_steps=2", "algo.optimizer.num_decay_steps=50", "algo.optimizer.schedule=cosine",
        "algo.optimizer.ema=0.9", "algo.optimizer.eps=1e-4", "training.checkpoint_period=3", "logging.log_period=1",
        *more,
    ]  # fmt: skip


def train_in_ranks(run, tokenizer_path, name, *more, start=LAUNCHER, algo="sft_pi0"):
    command = [sys.executable, "-m", *start, *overrides(run, tokenizer_path, name, *more, algo=algo)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=settings, check=True, timeout=1500)
    return newest(run, name)


def newest(run, name):
    run.config.unique_identifier = name
    path = Checkpoints(RunDirectory.of(run.config).checkpoints, keep=3).newest()
    assert path is not None
    return path


def train_alone(run):
    assert build_trainer(run.config).run(threading.Event())
    return newest(run, run.config.unique_identifier)


def assert_close(one, other, tolerance=1e-4):
    for name in ("policy/model.safetensors", "trainer.safetensors"):
        mine, theirs = load_file(one / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            torch.testing.assert_close(mine[key], theirs[key], rtol=tolerance, atol=tolerance, msg=key)
    assert read_state(one).algorithm == read_state(other).algorithm
    assert read_state(one).mixture == read_state(other).mixture


def test_two_ranks_equal_one_at_the_same_batch(sft, tokenizer_path):
    alone = train_alone(sft)
    assert_close(train_in_ranks(sft, tokenizer_path, "two"), alone)


CRITICS = [
    "algo.training_starts=1", "algo.optimizer.ema=0", "algo.sac.hidden_dims=[8]", "algo.sac.image_features=4",
    "algo.sac.cql_weight=1", "algo.sac.critic_ensemble_size=3", "algo.sac.critic_subsample_size=2",
    "algo.sac.cta_ratio=2", "algo.sac.actor_training_starts=0", "actor.execution_horizon=2",
    *(f"algo.{kind}_optimizer.{setting}" for kind in ("critic", "temperature")
      for setting in ("lr=1e-3", "schedule=constant", "num_warmup_steps=0", "eps=1e-4")),
]  # fmt: skip


@pytest.mark.parametrize("name", ["sac", "sac_pi0"])
def test_two_ranks_of_an_actor_critic_equal_one(sft, tokenizer_path, name):
    """With demonstrations, a conservative penalty, a subset of critics and an actor every second time."""
    trained = []
    for identifier, start in (("one", LAUNCHER[-1:]), ("two", LAUNCHER)):
        sft.config.unique_identifier = identifier
        sft.record(Outcome.SUCCESS, Outcome.FAILURE, root=RunDirectory.of(sft.config).replay)
        trained.append(train_in_ranks(sft, tokenizer_path, identifier, *CRITICS, start=start, algo=name))
    assert_close(*trained)


@pytest.mark.parametrize("name", ["sac", "sac_pi0"])
def test_two_ranks_of_an_actor_critic_with_zero_2_equal_one_without_it(sft, tokenizer_path, name):
    """Half of the updates, then the other half from the checkpoint: every network has an engine of its own."""
    zero = ["training.deepspeed_config=config/zero2.json", *CRITICS, "algo.critic_optimizer.max_grad_norm=0.1"]
    trained = []
    for identifier, runs in (("one", [zero[1:]]), ("zero", [[*zero, "algo.max_updates=3"], zero])):
        sft.config.unique_identifier = identifier
        sft.record(Outcome.SUCCESS, Outcome.FAILURE, root=RunDirectory.of(sft.config).replay)
        start = LAUNCHER if identifier == "zero" else LAUNCHER[-1:]
        for more in runs:
            path = train_in_ranks(sft, tokenizer_path, identifier, *more, start=start, algo=name)
        trained.append(path)
    assert_close(*trained)


@pytest.mark.parametrize("num_parts", [1, 2])
def test_two_ranks_of_zero_2_equal_one_without_it(sft, tokenizer_path, num_parts):
    alone = train_alone(sft)
    zero = [
        "training.deepspeed_config=config/zero2.json", f"training.gradient_accumulation_steps={num_parts}"
    ]  # fmt: skip
    assert_close(train_in_ranks(sft, tokenizer_path, "zero", *zero), alone)


def test_two_ranks_of_zero_2_in_bfloat16_equal_one_without_it(sft, tokenizer_path):
    sft.config.training.mixed_precision = "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)  # Other tests of this process train in float32.
    alone = train_alone(sft)
    AcceleratorState._reset_state(reset_partial_state=True)
    zero = ["training.deepspeed_config=config/zero2.json", "training.mixed_precision=bf16"]
    assert_close(train_in_ranks(sft, tokenizer_path, "zero", *zero), alone, tolerance=1e-3)


def test_another_number_of_ranks_continues_the_run(sft, tokenizer_path):
    whole = train_alone(sft)
    sft.config.unique_identifier, sft.config.algo.max_updates = "halves", 3
    train_alone(sft)
    assert_close(train_in_ranks(sft, tokenizer_path, "halves"), whole)


def test_zero_2_continues_what_one_process_began_and_the_other_way_round(sft, tokenizer_path):
    sft.config.algo.max_updates = 9
    whole = train_alone(sft)
    sft.config.unique_identifier, sft.config.algo.max_updates = "halves", 3
    train_alone(sft)
    train_in_ranks(sft, tokenizer_path, "halves", "training.deepspeed_config=config/zero2.json")
    sft.config.algo.max_updates = 9
    assert_close(train_alone(sft), whole)


def test_the_variables_of_torchrun_are_honoured(sft, tokenizer_path):
    alone = train_alone(sft)
    assert_close(train_in_ranks(sft, tokenizer_path, "torchrun", start=TORCHRUN), alone)


def nodes(run, tokenizer_path, name, directories, more=(), *, algo="sft_pi0"):
    """Starts two torchruns as on two machines, each with its own copy of the data; returns them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for number, (demonstrations, output) in enumerate(directories):
        torchrun = [
            "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1",
            "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "learner.trainer",
        ]  # fmt: skip
        own = [f"dataset.repo_id=[{demonstrations}]", f"output_dir={output}", *more]
        command = [sys.executable, "-m", *torchrun, *overrides(run, tokenizer_path, name, *own, algo=algo)]
        started.append(
            subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
        )
    return started


def test_two_machines_with_copies_of_the_data_equal_one(sft, tokenizer_path, tmp_path):
    alone = train_alone(sft)
    copy = shutil.copytree(sft.demonstrations, tmp_path / "copied_demonstrations")
    here = (sft.demonstrations, sft.config.output_dir)
    for process in nodes(sft, tokenizer_path, "nodes", [here, (copy, tmp_path / "other_machine")]):
        _, errors = process.communicate(timeout=1500)
        assert process.returncode == 0, errors
    assert_close(newest(sft, "nodes"), alone)


def test_a_machine_that_lacks_the_checkpoint_is_refused(sft, tokenizer_path, tmp_path):
    sft.config.unique_identifier, sft.config.algo.max_updates = "halves", 3
    train_alone(sft)
    here = (sft.demonstrations, sft.config.output_dir)
    for process in nodes(sft, tokenizer_path, "halves", [here, (sft.demonstrations, tmp_path / "other_machine")]):
        _, errors = process.communicate(timeout=1500)
        assert process.returncode != 0
        assert "same checkpoint" in errors


@pytest.mark.parametrize(
    ("algo", "shares_demonstrations", "said"),
    [("reject_sampling_pi0", True, "a replica of its replay"), ("sft_pi0", False, "the same demonstrations")],
)
def test_a_machine_with_other_data_is_refused(sft, tokenizer_path, tmp_path, algo, shares_demonstrations, said):
    other = sft.demonstrations
    if not shares_demonstrations:
        other = tmp_path / "other_demonstrations"
        sft.record(*[Outcome.SUCCESS] * 4, root=other)
    directories = [(sft.demonstrations, sft.config.output_dir), (other, tmp_path / "other_machine")]
    for process in nodes(sft, tokenizer_path, "apart", directories, algo=algo):
        _, errors = process.communicate(timeout=1500)
        assert process.returncode != 0
        assert said in errors
