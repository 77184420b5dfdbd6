import hashlib
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from serl_launcher import publication
from serl_launcher.policies import load_policy
from serl_launcher.policies.any_policy import load_any_policy
from serl_launcher.policies.gaussian import GaussianConfig, GaussianPolicy
from serl_launcher.policies.snapshots import PolicySnapshots
from serl_launcher.policies.tensor_files import write_tensors
from serl_launcher.publication import Publisher
from serl_launcher.tensor_blocks import read_blocks
from tests.actor.tiny_checkpoint import save_tiny_policy
from tests.actor.tiny_robot import SPEC


def test_the_file_is_what_the_safetensors_library_reads_and_the_checksums_are_its(tmp_path):
    weights = {
        "b": torch.randn(3, 5), "a": torch.randn(7).to(torch.bfloat16), "n": torch.arange(4), "s": torch.tensor(2.0),
        "flag": torch.tensor([True, False]), "none": torch.empty(0, 3), "t": torch.randn(4, 6).T,
    }  # fmt: skip
    path = tmp_path / "w.safetensors"
    blocks = write_tensors(weights, path)
    read = load_file(path)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert blocks == read_blocks(path)
    content = path.read_bytes()
    assert [hashlib.sha256(content[b.offset : b.offset + b.size]).hexdigest() for b in blocks] == [
        b.sha256 for b in blocks
    ]


def test_a_file_that_is_written_over_holds_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"x" * 100_000)
    weights = {"a": torch.randn(7)}
    write_tensors(weights, path)
    save_file(weights, tmp_path / "library")
    assert path.read_bytes() == (tmp_path / "library").read_bytes()


def test_float_weights_are_written_byte_for_byte_as_the_library_does(tmp_path):
    weights = {"b": torch.randn(3, 5), "a": torch.randn(7)}
    write_tensors(weights, tmp_path / "own")
    save_file(weights, tmp_path / "library")
    assert (tmp_path / "own").read_bytes() == (tmp_path / "library").read_bytes()


def policy_in(directory):
    save_tiny_policy(directory, SPEC)
    return load_policy(directory)


def test_a_snapshot_does_not_follow_the_weights(tmp_path):
    policy = policy_in(tmp_path / "start")
    before = {name: tensor.clone() for name, tensor in policy.network.state_dict().items()}
    snapshot = PolicySnapshots().take(policy)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.add_(1.0)
    published = Publisher(tmp_path / "policies").publish(snapshot, 1)
    assert publication.verify(published.path).version == 1
    loaded = load_policy(published.path)
    assert loaded.norm_stats
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.network.state_dict().items())


def test_a_snapshot_of_a_gaussian_policy_loads_as_it_was(tmp_path):
    policy = GaussianPolicy(GaussianConfig(hidden_dims=(4,)), SPEC)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    snapshot = PolicySnapshots().take(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    published = Publisher(tmp_path / "policies").publish(snapshot, 1)
    loaded = load_any_policy(publication.verify(published.path).path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("released", [0, 1])
def test_a_third_snapshot_waits_for_the_memory_of_whichever_is_released_first(tmp_path, released):
    policy = policy_in(tmp_path / "start")
    snapshots = PolicySnapshots()
    out = [snapshots.take(policy), snapshots.take(policy)]
    taken = []
    third = threading.Thread(target=lambda: taken.append(snapshots.take(policy)))
    third.start()
    time.sleep(0.1)
    assert not taken
    out[released].release()
    third.join(10)
    assert len(taken) == 1
