"""Our π0 and π0.5 against LeRobot 0.4.4's, on the same weights, inputs and noise; then through files."""

import dataclasses

import numpy as np
import pytest
import torch

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.networks.pi0 import ModelInputs
from serl_launcher.policies import NormStats, Pi0Policy, save_policy
from serl_launcher.policies.formats.names import to_published
from serl_launcher.policies.tokenizer import PromptTokenizer
from tools.bench_policy.lerobot_networks import CLASSES, arguments_of, build, lerobot_on_stock_transformers

# Importing LeRobot alone takes a loaded machine minutes.
pytestmark = pytest.mark.timeout(900)

BATCH, CAMERAS = 3, 2
# LeRobot fixes 8 heads.
CONFIGS = {
    name: PolicyConfig(
        name=name,
        vision=VisionConfig(image_size=28, patch_size=14, width=64, depth=2, mlp_dim=96, num_heads=4),
        language=GemmaConfig(width=64, depth=3, mlp_dim=96, num_heads=8, num_kv_heads=1, head_dim=16),
        expert=GemmaConfig(width=48, depth=3, mlp_dim=80, num_heads=8, num_kv_heads=1, head_dim=16),
        vocab_size=400,
        max_token_len=length,
        horizon=7,
        max_state_dim=9,
        max_action_dim=9,
        normalization=kind,
    )
    for name, length, kind in (("pi0", 48, "zscore"), ("pi05", 90, "quantile"))
}


@pytest.fixture(name="lerobot", scope="module")
def fixture_lerobot():
    with lerobot_on_stock_transformers(CONFIGS["pi0"]) as modules:
        yield modules


@pytest.fixture(name="policy", params=["pi0", "pi05"])
def fixture_policy(request, spec, digit_tokenizer):
    torch.manual_seed(0)
    config = CONFIGS[request.param]
    policy = Pi0Policy(config, spec, PromptTokenizer(digit_tokenizer.model, config.max_token_len))
    policy.network.initialize_()
    with torch.no_grad():
        # What starts at zero would hide mistakes.
        for parameter in policy.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    numbers = {"mean": [0.1, -0.2, 0.5], "std": [0.5, 0.7, 0.3], "q01": [-1.0, -0.8, 0.0], "q99": [1.5, 1.1, 1.0]}
    policy.set_norm_stats({"state": NormStats(**numbers), "actions": NormStats(**numbers)})
    return policy


def make_inputs(config):
    generator = torch.Generator().manual_seed(1)
    side, length = config.vision.image_size, config.max_token_len
    valid = torch.ones(BATCH, CAMERAS, dtype=torch.bool)
    valid[1, 1] = False
    return ModelInputs(
        images=2 * torch.rand((BATCH, CAMERAS, 3, side, side), generator=generator) - 1,
        image_valid=valid,
        tokens=torch.randint(3, config.vocab_size, (BATCH, length), generator=generator),
        token_valid=torch.arange(length)[None] < torch.tensor([[5], [length], [17]]),
        state=torch.randn((BATCH, config.max_state_dim), generator=generator),
    )


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_loss_gradient_and_samples_equal_lerobots(policy, lerobot):
    config, network = policy.config, policy.network
    reference = build(lerobot[config.name], config)
    reference.load_state_dict(to_published(network.state_dict(), both_names=True), strict=True)
    inputs = make_inputs(config)
    arguments = arguments_of(config, inputs)
    generator = torch.Generator().manual_seed(2)
    actions, noise = torch.randn((2, BATCH, config.horizon, config.max_action_dim), generator=generator)
    time = torch.rand(BATCH, generator=generator)

    theirs = reference(*arguments, actions, noise=noise, time=time)
    ours = network.flow_error(inputs, actions, noise[:, None], time[:, None])[:, 0]
    assert relative_error(ours.detach(), theirs.detach()) < 1e-5
    theirs.mean().backward()
    ours.mean().backward()
    gradients = dict(reference.named_parameters())
    for name in ("action_in_proj.weight", "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.weight"):
        assert relative_error(network.get_parameter(name).grad, gradients[name].grad) < 1e-4

    for num_steps in (1, 10):
        theirs = reference.sample_actions(*arguments, noise=noise, num_steps=num_steps)
        with torch.no_grad():
            ours = network.sample(inputs, noise[:, None], num_steps)[:, 0]
        assert relative_error(ours, theirs) < 1e-5


def test_what_we_save_acts_and_learns_alike_in_lerobot(policy, lerobot, spec, tmp_path, capsys, monkeypatch):
    from lerobot.processor import PolicyProcessorPipeline
    from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

    config = policy.config
    save_policy(policy, tmp_path, layout="lerobot")
    lerobot_policy = getattr(lerobot[config.name], f"{CLASSES[config.name]}Policy")
    reference = lerobot_policy.from_pretrained(tmp_path)
    assert "All keys loaded successfully" in capsys.readouterr().out
    preprocess = PolicyProcessorPipeline.from_pretrained(tmp_path, config_filename="policy_preprocessor.json")
    postprocess = PolicyProcessorPipeline.from_pretrained(
        tmp_path, config_filename="policy_postprocessor.json", to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )  # fmt: skip

    rng = np.random.default_rng(3)
    images = rng.integers(0, 255, (BATCH, CAMERAS, 28, 28, 3), dtype=np.uint8)
    state = rng.normal(0, 0.5, (BATCH, spec.state_dim)).astype(np.float32)
    prompts = ["put the red cube on the green plate", "put the blue cube on the white plate", "fold the towel"]
    frame = {
        f"observation.images.{camera.name}": torch.from_numpy(images[:, number]).permute(0, 3, 1, 2).float() / 255
        for number, camera in enumerate(spec.cameras)
    }
    prepared = preprocess({**frame, "observation.state": torch.from_numpy(state), "task": prompts})
    ours = policy.prepare(images, state, prompts)
    torch.testing.assert_close(prepared["observation.language.tokens"], ours.tokens)
    torch.testing.assert_close(prepared["observation.language.attention_mask"], ours.token_valid)

    noise = torch.randn((BATCH, config.horizon, config.max_action_dim), generator=torch.Generator().manual_seed(4))
    theirs = postprocess(reference.predict_action_chunk(prepared, noise=noise)).numpy()
    acted = policy.act(images, state, prompts, generator=torch.Generator().manual_seed(4))
    assert np.linalg.norm(acted - theirs) / np.linalg.norm(theirs) < 1e-5

    actions, time = torch.from_numpy(acted), torch.tensor([0.1, 0.5, 0.9])
    monkeypatch.setattr(reference.model, "sample_noise", lambda *_: noise)
    monkeypatch.setattr(reference.model, "sample_time", lambda *_: time)
    target = policy.normalize_actions(actions, torch.from_numpy(state))[..., : spec.action_dim]
    theirs, _ = reference({**prepared, "action": target})
    policy.config = dataclasses.replace(config, loss_dims="robot")
    is_pad = torch.zeros(actions.shape[:2], dtype=torch.bool)
    error = policy.flow_loss(ours, actions, is_pad, draws=(noise[:, None], time[:, None]))
    assert error.mean().item() == pytest.approx(theirs.item(), rel=1e-5)
