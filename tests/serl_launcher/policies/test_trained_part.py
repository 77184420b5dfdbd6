"""Checkpoints of a policy that is partly frozen: what is frozen lies once beside them, and is read back strictly."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.networks.lora import trainable_state_dict
from serl_launcher.policies import load_policy, policy_hash
from serl_launcher.policies.formats import format_of
from serl_launcher.policies.trained_part import TrainedPart
from tests.serl_launcher.policies.conftest import make_policy

LORA = TuningConfig(freeze_vision=True, lora=LoraConfig(language_rank=2, expert_rank=2))


@pytest.fixture(name="lora_policy")
def fixture_lora_policy(config, spec, tokenizer):
    return make_policy(dataclasses.replace(config, tuning=LORA), spec, tokenizer)


def save(part, policy, root, number):
    directory = root / number / "policy"
    directory.mkdir(parents=True)
    part.save(policy, directory)
    return directory


def assert_same_weights(one, other):
    mine, theirs = one.network.state_dict(), other.network.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_frozen_part_is_written_once_and_read_with_each(lora_policy, tmp_path):
    part = TrainedPart()
    first = save(part, lora_policy, tmp_path, "1")
    with torch.no_grad():
        lora_policy.network.action_in_proj.weight.add_(1.0)
    second = save(part, lora_policy, tmp_path, "2")
    third = save(TrainedPart(), lora_policy, tmp_path, "3")
    assert load_file(second / "model.safetensors").keys() == trainable_state_dict(lora_policy.network).keys()
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert format_of(second) == "hiors"
    for directory in (second, third):
        assert_same_weights(load_policy(directory), lora_policy)
    assert policy_hash(first) != policy_hash(second) == policy_hash(third)


def test_a_missing_or_another_base_stops_the_load(lora_policy, tmp_path):
    directory = save(TrainedPart(), lora_policy, tmp_path, "1")
    (base,) = tmp_path.glob("base-*.safetensors")
    content = base.read_bytes()
    base.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="not the file"):
        load_policy(directory)
    base.unlink()
    with pytest.raises(CheckpointError, match=f"{base.name}, which is missing. Copy that file along"):
        load_policy(directory)


def test_a_policy_that_trains_as_a_whole_is_written_whole(policy, tmp_path):
    directory = save(TrainedPart(), policy, tmp_path, "1")
    assert not (directory / "base.json").exists()
    assert_same_weights(load_policy(directory), policy)
