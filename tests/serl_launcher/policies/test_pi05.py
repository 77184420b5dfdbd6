"""The π0.5 policy: the state acts through the prompt; and the options where implementations differ."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from serl_launcher.config import load
from serl_launcher.errors import ConfigError
from serl_launcher.policies import Pi0Policy, build_policy
from serl_launcher.policies.normalization import NormStats, with_least_std
from serl_launcher.policies.pi0 import resize_with_pad
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import RobotSpec
from tests.serl_launcher.policies.conftest import make_policy


@pytest.fixture(name="pi05")
def fixture_pi05(config, spec, digit_tokenizer):
    changed = dataclasses.replace(
        config, name="pi05", vocab_size=400, max_token_len=64, normalization="quantile", max_state_dim=5
    )
    policy = make_policy(changed, spec, digit_tokenizer)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def with_option(policy, **changes):
    config = dataclasses.replace(policy.config, **changes)
    other = Pi0Policy(config, policy.spec, PromptTokenizer(policy.tokenizer.model, config.max_token_len))
    other.network.load_state_dict(policy.network.state_dict())
    other.set_norm_stats(policy.norm_stats)
    return other


def text_of(policy, inputs, row=0):
    return policy.tokenizer._processor.decode(inputs.tokens[row, inputs.token_valid[row]].tolist())


def test_the_tiny_pi05_has_room_for_the_state_of_the_simulated_robot(caplog):
    assets = Path(__file__).parents[3] / "robot_infra" / "assets" / "sim_pnp_base"
    config = load(["policy=pi05_tiny", f"policy.tokenizer_path={assets / 'tokenizer.model'}"]).policy
    policy = build_policy(config, msgspec.json.decode((assets / "spec.json").read_bytes(), type=RobotSpec))
    width = policy.spec.state_dim
    numbers = NormStats(mean=[0.0] * width, std=[1.0] * width, q01=[-1.0] * width, q99=[1.0] * width)
    policy.set_norm_stats({"state": numbers, "actions": numbers})
    actions = policy.act(
        np.zeros((1, 3, 64, 64, 3), np.uint8),
        np.full((1, width), 0.9, np.float32),
        ["put the red cube on the green plate"],
    )
    assert actions.shape == (1, 16, width)
    assert not caplog.records


def test_the_prompt_holds_one_integer_per_state_of_the_robot(pi05, batch):
    # Quantiles -1 and 1.5: the middle is 0.25, the left edge of bin 128.
    state = np.array([[-1.0, 0.251, 1.5]] * 4, np.float32)
    said = text_of(pi05, pi05.prepare(batch["images"], state, ["fold the towel"] * 4))
    assert said == "Task: fold the towel, State: 0 128 255;\nAction: "


def test_lerobots_prompt_holds_the_padding_too(pi05, batch):
    state = np.array([[-1.0, 0.251, 1.5]] * 4, np.float32)
    padded = with_option(pi05, state_in_prompt="padded")
    said = text_of(padded, padded.prepare(batch["images"], state, ["fold the towel"] * 4))
    assert said == "Task: fold the towel, State: 0 128 255 128 128;\nAction: "


def test_without_a_state_the_prompt_is_that_of_pi0(pi05, batch):
    blind = with_option(pi05, state_in_prompt="none")
    assert text_of(blind, blind.prepare(**{**batch, "prompts": ["fold the towel"] * 4})) == "fold the towel\n"


def test_the_state_alone_changes_the_actions(pi05, batch):
    moved = {**batch, "state": batch["state"] + 0.5}
    actions = [pi05.act(**b, generator=torch.Generator().manual_seed(1)) for b in (batch, moved)]
    assert np.abs(actions[0] - actions[1]).max() > 1e-4


def test_one_batch_is_overfitted_with_the_state_in_the_prompt(pi05, batch):
    policy = pi05
    actions = torch.randn(4, 6, 3) * 0.5
    is_pad = torch.zeros(4, 6, dtype=torch.bool)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    inputs = policy.prepare(**batch)
    losses = []
    for _ in range(120):
        loss = policy.flow_loss(inputs, actions, is_pad, noise_samples=4, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < 0.1 * losses[0]


def test_cameras_are_seen_in_the_order_of_the_policy(pi05, batch):
    swapped = with_option(pi05, image_keys=["cam_wrist", "cam_high"])
    torch.testing.assert_close(swapped.prepare(**batch).images, pi05.prepare(**batch).images.flip(1))


def test_a_camera_that_the_robot_lacks_is_left_out_as_if_masked(pi05, batch):
    wider = with_option(pi05, image_keys=["cam_high", "cam_low", "cam_wrist"])
    inputs = pi05.prepare(**batch)
    masked = dataclasses.replace(
        inputs,
        images=torch.stack([inputs.images[:, 0], torch.full_like(inputs.images[:, 0], -1.0), inputs.images[:, 1]], 1),
        image_valid=torch.tensor([[True, False, True]] * 4),
    )
    noise = torch.randn(4, 1, 6, 4)
    with torch.no_grad():
        samples = [pi05.network.sample(i, noise) for i in (wider.prepare(**batch), masked)]
    torch.testing.assert_close(*samples, rtol=1e-5, atol=1e-5)


def test_a_robot_without_any_of_the_cameras_is_refused(pi05):
    with pytest.raises(ConfigError, match=r"\['cam_low'\].*\['cam_high', 'cam_wrist'\]"):
        with_option(pi05, image_keys=["cam_low"])


def test_lerobots_resizing_is_reproduced():
    images = torch.rand(1, 1, 3, 20, 40)
    theirs = F.interpolate(images[0], size=(4, 8), mode="bilinear", align_corners=False)
    theirs = F.pad(theirs, (0, 0, 2, 2), value=-1.0) * 2 - 1
    torch.testing.assert_close(resize_with_pad(images * 2 - 1, 8, "lerobot")[0], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "key", ["name", "normalization", "state_in_prompt", "image_resize", "prompt_cleaning", "loss_dims"]
)
def test_an_unknown_choice_names_the_known_ones(config, key):
    with pytest.raises(ConfigError, match=rf"policy\.{key}: expected one of .*; got 'other'"):
        dataclasses.replace(config, **{key: "other"})


def test_quantiles_that_coincide_are_spread():
    stats = with_least_std(NormStats(mean=[0.0, 0.0], std=[0.0, 0.5], q01=[0.3, -1.0], q99=[0.3, 1.0]))
    np.testing.assert_allclose(stats.q01, [0.29, -1.0])
    np.testing.assert_allclose(stats.q99, [0.31, 1.0])
