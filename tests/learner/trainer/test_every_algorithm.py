"""What the trainer promises, for every algorithm alike."""

import dataclasses
import threading

import pytest
import torch
from safetensors.torch import load_file

from learner.trainer.build import build_trainer
from learner.trainer.checkpoints import Checkpoints, policy_of, read_state
from serl_launcher import publication
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.errors import ConfigError
from serl_launcher.metrics import read_rows
from serl_launcher.policies import load_policy
from serl_launcher.policies.any_policy import load_any_policy
from serl_launcher.run_directory import RunDirectory
from serl_launcher.types import Outcome
from tests.process_death import dies


@pytest.fixture(name="run_of")
def fixture_run_of(run):
    run.record(*[Outcome.SUCCESS] * 2, root=run.demonstrations)
    run.record(Outcome.SUCCESS, Outcome.FAILURE)
    run.config.algo.training_starts = 1
    run.config.actor.execution_horizon = 2
    run.config.algo.critic_optimizer = OptimizerConfig(lr=1e-3, schedule="constant", num_warmup_steps=0)

    def choose(name):
        run.config.algo.name = name
        if name in ("sac", "sac_pi0"):
            run.config.algo.sac.hidden_dims = [8]
            run.config.algo.sac.image_features = 4
        if name == "sac_pi0":
            run.config.algo.sac.distill_weight = 1.0
            run.config.algo.sft_steps = 1
        return run

    return choose


def train(run, identifier, max_updates):
    run.config.unique_identifier, run.config.algo.max_updates = identifier, max_updates
    assert build_trainer(run.config).run(threading.Event())
    path = Checkpoints(RunDirectory.of(run.config).checkpoints, keep=3).newest()
    assert path is not None
    return path


def share_replay(run, identifier):
    run.config.unique_identifier = identifier
    directory = RunDirectory.of(run.config)
    directory.root.mkdir()
    directory.replay.symlink_to(run.directory.replay)


@pytest.mark.parametrize("name", ["sft_pi0", "reject_sampling_pi0", "sac", "sac_pi0"])
def test_a_resumed_run_continues_bit_by_bit_and_its_policy_acts(run_of, name):
    run = run_of(name)
    whole = train(run, "test", 6)
    share_replay(run, "halves")
    train(run, "halves", 3)
    halves = train(run, "halves", 6)
    for file in ("policy/model.safetensors", "trainer.safetensors"):
        one, other = load_file(whole / file), load_file(halves / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_state(whole).algorithm == read_state(halves).algorithm
    published = publication.latest(RunDirectory.of(run.config).policies)
    assert published is not None
    policy = load_any_policy(published.path)
    assert policy.spec == load_any_policy(policy_of(halves)).spec
    rows = read_rows(RunDirectory.of(run.config).metrics / "trainer.jsonl")
    assert all("train/loss" in row for row in rows)


LORA = TuningConfig(freeze_vision=True, lora=LoraConfig(language_rank=2, expert_rank=2))


@pytest.mark.parametrize(
    ("changes", "ema"),
    [({}, 0.0), ({"name": "pi05", "max_token_len": 48}, 0.0), ({"tuning": LORA}, 0.0), ({"tuning": LORA}, 0.9)],
    ids=["pi0", "pi05", "lora", "lora-ema"],
)
def test_five_updates_and_five_more_equal_ten_bit_for_bit(run_of, changes, ema):
    run = run_of("sft_pi0")
    run.config.policy = dataclasses.replace(run.config.policy, **changes)
    run.config.algo.optimizer.ema = ema
    run.config.training.checkpoint_period = 5
    whole = train(run, "test", 10)
    train(run, "halves", 5)
    halves = train(run, "halves", 10)
    for file in ("policy/model.safetensors", "trainer.safetensors"):
        one, other = load_file(whole / file), load_file(halves / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (load_policy(policy_of(path)).state_dict() for path in (whole, halves))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["sft_pi0", "sac", "sac_pi0"])
def test_a_killed_trainer_goes_on_as_if_nothing_had_happened(run_of, name):
    """It dies after update 6, whose checkpoint is not named yet, and makes updates 4 to 6 once more."""
    run = run_of(name)
    run.config.algo.max_updates = 6
    dies(lambda: build_trainer(run.config).run(threading.Event()), "checkpoint written:2")
    assert sorted(path.name for path in run.directory.checkpoints.glob("0*")) == ["00000003"]
    resumed = train(run, "test", 6)
    share_replay(run, "whole")
    whole = train(run, "whole", 6)
    for file in ("policy/model.safetensors", "trainer.safetensors"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes(), file
    one, other = read_state(resumed), read_state(whole)
    assert (one.algorithm, one.mixture, one.counters) == (other.algorithm, other.mixture, other.counters)


@pytest.mark.parametrize("name", ["sac", "sac_pi0"])
def test_critics_judge_commands_so_measured_labels_are_refused(run_of, name):
    run = run_of(name)
    run.config.dataset.label = "measured"
    with pytest.raises(ConfigError, match=f"algo={name} has critics.*label=commanded"):
        build_trainer(run.config)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("sac", "policy.tuning.expert_only"), ("sac", "algo.image_augmentation"), ("sac_pi0", "algo.image_augmentation")],
)
def test_what_was_asked_for_and_an_algorithm_cannot_do_is_refused(run_of, name, asked):
    run = run_of(name)
    run.config.explicit = frozenset({asked})
    with pytest.raises(ConfigError, match=asked):
        build_trainer(run.config)
