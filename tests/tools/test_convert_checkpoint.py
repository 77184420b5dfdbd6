"""The converter as a person calls it."""

import json

import msgspec
import pytest
import torch

from serl_launcher.policies import load_policy
from serl_launcher.policies.formats import hiors, read_stored
from tests.actor.tiny_checkpoint import save_tiny_policy
from tests.recorded_episodes import robot
from tools.convert_checkpoint import main

SPEC = robot(size=16, cameras=1)


@pytest.fixture(name="source")
def fixture_source(tmp_path):
    save_tiny_policy(tmp_path / "source", SPEC)
    return tmp_path / "source"


def convert(source, target, layout, *more):
    return main(["--from", str(source), "--to", str(target), "--format", layout, *more])


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
def test_there_and_back_gives_the_same_tensors(source, tmp_path, layout):
    assert convert(source, tmp_path / "there", layout) == 0
    assert convert(tmp_path / "there", tmp_path / "back", "hiors") == 0
    one, other = load_policy(source), load_policy(tmp_path / "back")
    assert one.config == other.config
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name


def test_a_base_model_becomes_a_robots(source, tmp_path):
    assert convert(source, tmp_path / "base", "openpi") == 0
    sidecar = json.loads((tmp_path / "base" / "hiors.json").read_text())
    (tmp_path / "base" / "hiors.json").write_text(json.dumps({**sidecar, "robot": None}))
    spec = tmp_path / "spec.json"
    spec.write_bytes(msgspec.json.encode(SPEC))
    assert convert(tmp_path / "base", tmp_path / "ours", "hiors", "--robot", str(spec), "--horizon", "3") == 0
    policy = load_policy(tmp_path / "ours")
    assert (policy.spec, policy.config.horizon) == (SPEC, 3)


def test_the_cameras_that_a_policy_sees_can_be_chosen(source, tmp_path, capsys, caplog):
    assert convert(source, tmp_path / "chosen", "hiors", "--image-keys", "cam_0", "cam_other") == 0
    assert load_policy(tmp_path / "chosen").num_cameras == 1
    assert "lacks the cameras cam_other" in caplog.text
    assert convert(source, tmp_path / "blind", "hiors", "--image-keys", "cam_other") == 1
    assert "--image-keys" in capsys.readouterr().err


def test_the_weights_can_be_written_in_half_precision(source, tmp_path):
    assert convert(source, tmp_path / "half", "openpi", "--dtype", "bfloat16") == 0
    assert {tensor.dtype for tensor in read_stored(tmp_path / "half").weights.values()} == {torch.bfloat16}


def test_nothing_is_overwritten(source, tmp_path, capsys):
    assert convert(source, source, "openpi") == 1
    assert "empty or absent" in capsys.readouterr().err


def test_a_directory_without_a_policy_is_an_error(tmp_path, capsys):
    assert convert(tmp_path / "nothing", tmp_path / "there", "hiors") == 1
    assert "Expected a policy at" in capsys.readouterr().err


def test_a_misshapen_tensor_stops_the_conversion(source, tmp_path, capsys):
    stored = read_stored(source)
    stored.weights["action_out_proj.bias"] = torch.zeros(99)
    hiors.write(stored, tmp_path / "bad")
    assert convert(tmp_path / "bad", tmp_path / "there", "lerobot") == 1
    assert "action_out_proj.bias: expected" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()
