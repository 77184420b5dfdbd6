"""Many actions from one observation, chunks that continue others, the frozen policy, and how training is set."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from serl_launcher.config.acting import ActingConfig
from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.errors import ConfigError
from serl_launcher.networks.features import encode
from serl_launcher.networks.frozen import FrozenPi0
from serl_launcher.networks.precision import parameter_dtype
from serl_launcher.policies import load_policy, save_policy
from serl_launcher.types import Unfinished
from tests.serl_launcher.policies.conftest import make_policy


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def observed(batch, unfinished=(), image_valid=None):
    return SimpleNamespace(**batch, unfinished=unfinished, image_valid=image_valid)


def count_backbone_passes(policy):
    passes = []
    tower = policy.network.paligemma_with_expert.paligemma.model.vision_tower.vision_model
    tower.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_many_actions_equal_as_many_separate_calls_on_the_same_noise(policy, batch):
    passes = count_backbone_passes(policy)
    together = policy.act_many(**batch, num_samples=3, generator=generator())
    assert together.shape == (4, 3, 6, 3)
    assert len(passes) == 1
    inputs = policy.prepare(**batch)
    noise = torch.randn((4, 3, 6, 4), generator=generator())
    for number in range(3):
        alone = policy.network.sample(inputs, noise[:, number : number + 1])[:, 0].detach()
        expected = policy.unnormalize_actions(alone, torch.from_numpy(batch["state"]))
        np.testing.assert_allclose(together[:, number], expected, rtol=1e-4, atol=1e-5)


def test_one_of_one_is_act(policy, batch):
    many = policy.act_many(**batch, num_samples=1, generator=generator())
    np.testing.assert_array_equal(many[:, 0], policy.act(**batch, generator=generator()))


def test_a_frozen_policy_acts_the_same(config, spec, tokenizer, batch):
    config = dataclasses.replace(config, delta_actions=True)
    plain, frozen = (make_policy(config, spec, tokenizer) for _ in range(2))
    frozen.freeze_()
    np.testing.assert_allclose(
        frozen.act(**batch, generator=generator()), plain.act(**batch, generator=generator()), rtol=1e-4, atol=1e-5
    )
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_in_half_precision_the_originals_are_kept_once_and_the_published_list_in_float32(
    config, spec, tokenizer, batch
):
    plain = make_policy(config, spec, tokenizer)
    half = make_policy(
        dataclasses.replace(config, acting=ActingConfig(precision="bfloat16")), spec, tokenizer
    ).freeze_()
    for name, parameter in half.network.named_parameters():
        assert parameter.dtype == parameter_dtype(name, torch.bfloat16), name
    acted, expected = (policy.act(**batch, generator=generator()) for policy in (half, plain))
    assert 0 < np.linalg.norm(acted - expected) / np.linalg.norm(expected) < 0.03


def test_where_every_shape_costs_a_compilation_batches_are_padded_and_answers_stay(
    config, spec, tokenizer, batch, monkeypatch
):
    monkeypatch.setattr(FrozenPi0, "compile_", lambda _network: None)
    compiling = dataclasses.replace(config, acting=ActingConfig(compile=True))
    plain, padding = (make_policy(each, spec, tokenizer).freeze_() for each in (config, compiling))
    three = {key: value[:3] for key, value in batch.items()}
    unfinished = [Unfinished(actions=np.zeros((4, 3), np.float32), delay_ticks=2)] * 3
    sizes = []
    encode_all = FrozenPi0.encode

    def encode_noting(network, inputs):
        sizes.append(len(inputs.tokens))
        return encode_all(network, inputs)

    monkeypatch.setattr(FrozenPi0, "encode", encode_noting)
    for act in (
        lambda policy: policy.act(**three, generator=generator()),
        lambda policy: policy.act_on(observed(three, unfinished), generator=generator()),
    ):
        np.testing.assert_allclose(act(padding), act(plain), rtol=1e-4, atol=1e-5)
    assert sizes == [4, 3, 4, 3]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_chunk_continues_the_unfinished_one(policy, batch, frozen):
    if frozen:
        policy.freeze_()
    free = policy.act(**batch, generator=generator())
    old = free + np.float32(0.2)
    unfinished = [Unfinished(actions=old[0, :5], delay_ticks=3), None, Unfinished(actions=old[2], delay_ticks=2), None]
    actions = policy.act_on(observed(batch, unfinished), generator=generator())
    for row, delay in ((0, 3), (2, 2)):
        assert np.abs(actions - old)[row, :delay].mean() < 0.5 * np.abs(free - old)[row, :delay].mean()
    np.testing.assert_allclose(actions[1], free[1], rtol=1e-4, atol=1e-5)


def test_a_policy_trained_with_delays_is_given_the_actions_under_way(config, spec, tokenizer, batch):
    config = dataclasses.replace(config, tuning=TuningConfig(max_delay=3), delta_actions=True)
    policy = make_policy(config, spec, tokenizer)
    old = np.random.default_rng(0).normal(0, 0.5, (4, 6, 3)).astype(np.float32)
    unfinished = [Unfinished(actions=chunk[:4], delay_ticks=2) for chunk in old]
    actions = policy.act_on(observed(batch, unfinished), generator=generator())
    np.testing.assert_allclose(actions[:, :2], old[:, :2], atol=1e-5)
    assert np.abs(actions[:, 2] - old[:, 2]).max() > 1e-3


def test_chunking_can_be_turned_off(config, spec, tokenizer, batch):
    policy = make_policy(dataclasses.replace(config, acting=ActingConfig(chunking="off")), spec, tokenizer)
    unfinished = [Unfinished(actions=np.ones((4, 3), np.float32), delay_ticks=2)] * 4
    actions = policy.act_on(observed(batch, unfinished), generator=generator())
    np.testing.assert_array_equal(actions, policy.act(**batch, generator=generator()))


def test_a_camera_that_a_robot_lacks_has_no_influence(policy, batch):
    valid = np.ones((4, 2), bool)
    valid[:, 1] = False
    changed = {**batch, "images": batch["images"].copy()}
    changed["images"][:, 1] = 7
    actions = [policy.act_on(observed(b, image_valid=valid), generator=generator()) for b in (batch, changed)]
    np.testing.assert_allclose(actions[0], actions[1], rtol=1e-5, atol=1e-6)


def test_given_actions_do_not_count_in_the_loss(config, spec, tokenizer, batch):
    policy = make_policy(dataclasses.replace(config, tuning=TuningConfig(max_delay=5)), spec, tokenizer)
    actions, is_pad = torch.zeros(4, 6, 3), torch.zeros(4, 6, dtype=torch.bool)
    error = policy.flow_loss(policy.prepare(**batch), actions, is_pad, noise_samples=8, generator=generator())
    is_given = (error == 0).all(-1)
    counts = is_given.sum(-1)
    assert torch.equal(is_given, torch.arange(6) < counts[..., None])
    assert set(counts.flatten().tolist()) == {0, 1, 2, 3, 4, 5}


def test_critics_and_the_actor_share_one_pass_of_the_backbone(policy, batch):
    passes = count_backbone_passes(policy)
    inputs = policy.prepare(**batch)
    encoding = encode(policy.network, inputs)
    assert encoding.features.shape == (4, 32)
    actions, is_pad = torch.zeros(4, 6, 3), torch.zeros(4, 6, dtype=torch.bool)
    loss = policy.flow_loss(inputs, actions, is_pad, generator=generator(), encoding=encoding).mean()
    (loss + encoding.features.mean()).backward()
    assert len(passes) == 1
    alone = policy.flow_loss(inputs, actions, is_pad, generator=generator()).mean()
    torch.testing.assert_close(loss.detach(), alone.detach())


def test_a_checkpoint_is_adapted_as_the_run_asks_and_continues_so(policy, config, batch, tmp_path):
    before = policy.act(**batch, generator=generator())
    policy.adopt_(dataclasses.replace(config, tuning=TuningConfig(lora=LoraConfig(expert_rank=2), freeze_vision=True)))
    np.testing.assert_array_equal(policy.act(**batch, generator=generator()), before)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_b" in name:
                parameter.normal_(std=0.3)
    adapted = policy.act(**batch, generator=generator())
    save_policy(policy, tmp_path)
    loaded = load_policy(tmp_path)
    assert loaded.config.tuning == policy.config.tuning
    np.testing.assert_array_equal(loaded.act(**batch, generator=generator()), adapted)
    loaded.adopt_(config)
    assert not any("lora" in name for name, _ in loaded.named_parameters())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    np.testing.assert_allclose(loaded.act(**batch, generator=generator()), adapted, rtol=1e-3, atol=1e-4)


def test_unknown_ways_of_acting_are_refused():
    with pytest.raises(ConfigError, match="guided"):
        ActingConfig(chunking="paint")
