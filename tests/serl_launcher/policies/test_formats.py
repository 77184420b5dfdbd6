"""Checkpoints of others: what goes out comes back, and what does not fit stops the load."""

import dataclasses
import json

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.networks.lora import lora_layers
from serl_launcher.policies import NormStats, load_policy, policy_hash, save_policy
from serl_launcher.policies.checkpoints import stored_policy
from serl_launcher.policies.formats import format_of, lerobot_processors, read_stored, write_stored
from serl_launcher.policies.formats.names import DEAD_HEAD, EMBEDDING, TIED_HEAD
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import CameraSpec, RobotSpec
from tests.serl_launcher.policies.conftest import make_policy
from tests.serl_launcher.policies.small_published import assert_equal_tensors, published_config

HEAD = "action_out_proj.bias"


@pytest.fixture(name="policy", params=["pi0", "pi05"])
def fixture_policy(request, spec, digit_tokenizer):
    config = published_config(request.param)
    policy = make_policy(config, spec, PromptTokenizer(digit_tokenizer.model, config.max_token_len))
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


@pytest.mark.parametrize("layout", ["hiors", "lerobot", "openpi"])
def test_a_round_trip_gives_the_same_policy(policy, batch, tmp_path, layout):
    save_policy(policy, tmp_path, layout=layout)
    assert format_of(tmp_path) == layout
    loaded = load_policy(tmp_path)
    assert_equal_tensors(policy.network.state_dict(), loaded.network.state_dict())
    assert (loaded.config, loaded.spec) == (policy.config, policy.spec)
    actions = [p.act(**batch, generator=torch.Generator().manual_seed(2)) for p in (policy, loaded)]
    np.testing.assert_allclose(*actions, rtol=1e-6, atol=1e-7)


def test_a_loaded_policy_outlives_its_file(policy, tmp_path):
    save_policy(policy, tmp_path)
    loaded = load_policy(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert_equal_tensors(policy.network.state_dict(), loaded.network.state_dict())
    save_policy(loaded, tmp_path)
    save_policy(load_policy(tmp_path), tmp_path)
    assert_equal_tensors(policy.network.state_dict(), load_policy(tmp_path).network.state_dict())


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
def test_statistics_survive_a_round_trip(policy, tmp_path, layout):
    save_policy(policy, tmp_path, layout=layout)
    back = read_stored(tmp_path).norm_stats
    for key, stats in policy.norm_stats.items():
        for name in ("mean", "std", "q01", "q99"):
            np.testing.assert_allclose(getattr(back[key], name), getattr(stats, name), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
def test_sizes_are_read_off_the_tensors_where_nothing_else_tells(policy, tmp_path, layout):
    save_policy(policy, tmp_path, layout=layout)
    (tmp_path / "hiors.json").unlink()
    config = read_stored(tmp_path).config
    own = policy.config
    same = ("name", "vision", "language", "expert", "vocab_size", "horizon", "max_action_dim", "normalization")
    for field in (*same, "max_token_len", "max_state_dim"):
        assert getattr(config, field) == getattr(own, field), field
    assert config.image_resize == ("lerobot" if layout == "lerobot" else "openpi")


def test_a_foreign_checkpoint_is_loaded_for_a_robot(policy, spec, batch, tmp_path):
    save_policy(policy, tmp_path, layout="openpi")
    (tmp_path / "hiors.json").unlink()
    with pytest.raises(CheckpointError, match="for no robot"):
        load_policy(tmp_path)
    loaded = load_policy(tmp_path, spec=spec)
    loaded.config.num_steps = policy.config.num_steps
    actions = [p.act(**batch, generator=torch.Generator().manual_seed(2)) for p in (policy, loaded)]
    np.testing.assert_array_equal(*actions)


def test_statistics_of_another_width_are_not_taken_over(policy, spec, tmp_path):
    save_policy(policy, tmp_path, layout="openpi")
    (tmp_path / "hiors.json").unlink()
    names = ("j0", "gripper")
    other = RobotSpec(
        name="other", cameras=spec.cameras, state_names=names, action_names=names, action_low=(-1.0,) * 2,
        action_high=(1.0,) * 2, control_hz=10.0,
    )  # fmt: skip
    assert load_policy(tmp_path, spec=other).norm_stats == {}


def test_openpi_files_have_the_tied_name_and_the_dead_head(policy, tmp_path):
    save_policy(policy, tmp_path, layout="openpi")
    tensors = load_file(tmp_path / "model.safetensors")
    assert EMBEDDING not in tensors
    assert tensors[DEAD_HEAD].shape == (400, 24)
    assert len(tensors) == len(policy.network.state_dict()) + 1
    assert json.loads((tmp_path / "config.json").read_text())["action_horizon"] == 6
    assert (tmp_path / "assets" / "toy" / "norm_stats.json").is_file()


@pytest.mark.parametrize("kept", [[EMBEDDING], [TIED_HEAD], [EMBEDDING, TIED_HEAD]])
def test_either_name_of_the_tied_tensor_is_accepted(policy, tmp_path, kept):
    save_policy(policy, tmp_path, layout="openpi")
    tensors = load_file(tmp_path / "model.safetensors")
    embedding = tensors.pop(TIED_HEAD)
    save_file({**tensors, **{name: embedding.clone() for name in kept}}, tmp_path / "model.safetensors")
    assert_equal_tensors(policy.network.state_dict(), load_policy(tmp_path).network.state_dict())


def test_two_different_tied_tensors_are_refused(policy, tmp_path):
    save_policy(policy, tmp_path, layout="openpi")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, EMBEDDING: tensors[TIED_HEAD] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="one tensor in the model"):
        load_policy(tmp_path)


@pytest.mark.parametrize("layout", ["hiors", "lerobot", "openpi"])
def test_every_tensor_that_does_not_fit_is_listed(policy, tmp_path, layout):
    save_policy(policy, tmp_path, layout=layout)
    prefix = "model." if layout == "lerobot" else ""
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"{prefix}{HEAD}"]
    tensors[f"{prefix}surplus"] = torch.zeros(1)
    tensors[f"{prefix}action_in_proj.bias"] = torch.zeros(7)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as raised:
        load_policy(tmp_path)
    said = str(raised.value)
    assert "3 problems" in said
    assert f"missing {HEAD}" in said
    assert "unexpected surplus" in said
    assert "action_in_proj.bias: expected (24,), got (7,)" in said


def test_a_type_that_contradicts_the_tensors_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path, layout="lerobot")
    path = tmp_path / "config.json"
    other = "pi0" if policy.config.name == "pi05" else "pi05"
    path.write_text(json.dumps({**json.loads(path.read_text()), "type": other}))
    with pytest.raises(CheckpointError, match=f"says '{other}', the tensors are those of '{policy.config.name}'"):
        load_policy(tmp_path)


def test_weights_of_something_else_are_refused(tmp_path):
    save_file({"linear.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"begins with \['linear\.weight'\]"):
        load_policy(tmp_path)


def test_a_damaged_file_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_policy(tmp_path)


def test_lerobots_settings_tell_its_layout_where_the_names_lack_the_prefix(policy, tmp_path):
    save_policy(policy, tmp_path, layout="lerobot")
    path = tmp_path / "model.safetensors"
    save_file({name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}, path)
    assert format_of(tmp_path) == "lerobot"
    loaded = load_policy(tmp_path)
    assert loaded.norm_stats["state"].mean == pytest.approx(policy.norm_stats["state"].mean)
    assert_equal_tensors(policy.network.state_dict(), loaded.network.state_dict())


def test_damaged_settings_are_named(policy, tmp_path):
    save_policy(policy, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"Expected the settings of a policy at .*config\.json"):
        load_policy(tmp_path)


def test_what_lerobot_does_in_its_own_way_is_done_in_its_way(policy, tmp_path):
    save_policy(policy, tmp_path, layout="lerobot")
    (tmp_path / "hiors.json").unlink()
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["input_features"]["observation.images.depth"] = {"type": "STATE", "shape": [1]}
    path.write_text(json.dumps(config))
    back = read_stored(tmp_path).config
    assert back.image_keys == ["cam_high", "cam_wrist"]
    assert (back.image_resize, back.prompt_cleaning, back.loss_dims) == ("lerobot", "lerobot", "robot")


def test_inputs_that_lerobot_prepares_otherwise_are_told(policy, spec, tmp_path, caplog):
    wide = msgspec.structs.replace(spec, cameras=(CameraSpec(name="wide", height=12, width=20), spec.cameras[0]))
    stored = dataclasses.replace(stored_policy(policy), spec=wide)
    write_stored(stored, tmp_path / "told", "lerobot")
    assert "images of wide to 16 x 16" in caplog.text
    assert ("prompts" in caplog.text) == (policy.config.name == "pi0")
    caplog.clear()
    own = dataclasses.replace(policy.config, image_resize="lerobot", prompt_cleaning="lerobot")
    write_stored(dataclasses.replace(stored, config=own), tmp_path / "quiet", "lerobot")
    assert "images of" not in caplog.text
    assert "prompts" not in caplog.text


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
def test_the_delays_that_a_policy_was_trained_for_survive(spec, digit_tokenizer, tmp_path, layout):
    tuning = TuningConfig(max_delay=2, lora=LoraConfig(expert_rank=2))
    policy = make_policy(published_config("pi0", tuning=tuning), spec, digit_tokenizer)
    save_policy(policy, tmp_path, layout=layout)
    assert load_policy(tmp_path).config.tuning == TuningConfig(max_delay=2)


def test_relative_actions_have_no_place_in_lerobot(spec, digit_tokenizer, tmp_path):
    policy = make_policy(published_config("pi0", delta_actions=True), spec, digit_tokenizer)
    with pytest.raises(CheckpointError, match="relative to the state"):
        save_policy(policy, tmp_path, layout="lerobot")


@pytest.mark.parametrize("state_in_prompt", ["padded", "unpadded"])
def test_how_the_state_is_written_is_kept_in_lerobots_processors(spec, digit_tokenizer, tmp_path, state_in_prompt):
    policy = make_policy(published_config("pi05", state_in_prompt=state_in_prompt), spec, digit_tokenizer)
    save_policy(policy, tmp_path, layout="lerobot")
    (tmp_path / "hiors.json").unlink()
    assert read_stored(tmp_path).config.state_in_prompt == state_in_prompt


def test_a_lerobot_step_that_says_nothing_pads_to_32(policy, tmp_path):
    save_policy(policy, tmp_path, layout="lerobot")
    path = tmp_path / "policy_preprocessor.json"
    pipeline = json.loads(path.read_text())
    for step in pipeline["steps"]:
        if step["registry_name"] == lerobot_processors.STATE_PROMPT_STEP:
            step["config"] = {}
    path.write_text(json.dumps(pipeline))
    assert read_stored(tmp_path).config.state_in_prompt == ("padded" if policy.config.name == "pi05" else "unpadded")


def test_factors_stay_apart_at_home_and_are_merged_abroad(spec, digit_tokenizer, batch, tmp_path):
    tuning = TuningConfig(lora=LoraConfig(language_rank=2, expert_rank=2, init="openpi"))
    policy = make_policy(published_config("pi05", tuning=tuning, max_token_len=64), spec, digit_tokenizer)
    for layout in ("hiors", "openpi"):
        save_policy(policy, tmp_path / layout, layout=layout)
    home, abroad = (load_policy(tmp_path / layout) for layout in ("hiors", "openpi"))
    assert_equal_tensors(policy.network.state_dict(), home.network.state_dict())
    assert any(lora_layers(home.network))
    assert not any(lora_layers(abroad.network))
    actions = [p.act(**batch, generator=torch.Generator().manual_seed(2)) for p in (policy, home, abroad)]
    np.testing.assert_array_equal(actions[0], actions[1])
    np.testing.assert_allclose(actions[0], actions[2], rtol=1e-4, atol=1e-5)


def test_in_half_precision_the_published_list_stays_float32(policy, tmp_path):
    save_policy(policy, tmp_path, dtype=torch.bfloat16, layout="openpi")
    assert json.loads((tmp_path / "config.json").read_text())["precision"] == "bfloat16"
    weights = load_policy(tmp_path, dtype=torch.bfloat16).network.state_dict()
    assert weights["action_out_proj.weight"].dtype == torch.float32
    assert weights[EMBEDDING].dtype == torch.bfloat16


def test_a_base_model_needs_a_tokenizer_and_says_so(policy, spec, tmp_path):
    stored = dataclasses.replace(stored_policy(policy), tokenizer=None)
    write_stored(stored, tmp_path, "openpi")
    with pytest.raises(CheckpointError, match="SentencePiece"):
        load_policy(tmp_path, spec=spec)


def test_the_hash_follows_every_file_that_decides(policy, tmp_path):
    for number in range(2):
        save_policy(policy, tmp_path / str(number), layout="lerobot")
    assert policy_hash(tmp_path / "0") == policy_hash(tmp_path / "1")
    policy.set_norm_stats(
        {key: NormStats(mean=s.mean, std=[9.0] * 3, q01=s.q01, q99=s.q99) for key, s in policy.norm_stats.items()}
    )
    save_policy(policy, tmp_path / "1", layout="lerobot")
    assert policy_hash(tmp_path / "0") != policy_hash(tmp_path / "1")
