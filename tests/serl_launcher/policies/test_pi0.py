"""The π0 policy against hand-computed values, laws and its own parts computed naively."""

import dataclasses

import numpy as np
import pytest
import torch

from serl_launcher.errors import CheckpointError, ConfigError, PolicyError
from serl_launcher.networks.gemma import rope_table, rotate
from serl_launcher.networks.pi0 import sample_flow_time, time_embedding
from serl_launcher.policies import Pi0Policy, load_policy, policy_hash, save_policy
from serl_launcher.policies.augmentation import augment
from serl_launcher.policies.normalization import Normalizer, NormStats, with_least_std
from serl_launcher.policies.pi0 import resize_with_pad
from tests.serl_launcher.policies.conftest import make_policy


@pytest.mark.parametrize(
    ("time", "golden"),
    [
        (0.5, [0, 0, 1, 0.707107, 1, -1, 0, 0.707107]),
        (1.0, [0, 0, 0, 1, 1, 1, -1, 0]),
        (0.3, [0, 0, -1, 0.453990, 1, -1, 0, 0.891007]),
    ],
)
def test_time_embedding_equals_the_published_values(time, golden):
    np.testing.assert_allclose(time_embedding(torch.tensor([time]), 8)[0], golden, atol=5e-5)


def test_flow_time_has_the_mean_and_the_tail_of_the_published_beta():
    times = sample_flow_time((200_000,), torch.Generator().manual_seed(0), torch.device("cpu"))
    assert abs(times.mean().item() - 0.6004) < 0.002
    assert abs((times < 0.1).float().mean().item() - 0.0312) < 0.002
    assert times.min() >= 0.001
    assert times.max() <= 1.0


def test_rotary_positions_depend_on_distance_only():
    query, key = torch.randn(2, 1, 1, 1, 16)

    def score(at, to):
        tables = [rope_table(torch.tensor([[position]]), 16, torch.float32) for position in (at, to)]
        return (rotate(query, tables[0]) * rotate(key, tables[1])).sum().item()

    assert score(3, 1) == pytest.approx(score(10, 8), abs=1e-5)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)


def naive_velocity(policy, inputs, x_t, time):
    """π0 as the paper draws it: one joint attention over prefix, state and actions, in plain loops over layers."""
    network = policy.network
    backbone = network.paligemma_with_expert.paligemma.model
    expert = network.paligemma_with_expert.gemma_expert.model
    batch = len(x_t)
    images = torch.cat(
        [
            backbone.multi_modal_projector.linear(backbone.vision_tower.vision_model(inputs.images[:, camera]))
            for camera in range(inputs.images.shape[1])
        ],
        dim=1,
    )
    text = backbone.language_model.embed_tokens(inputs.tokens) * policy.config.language.width**0.5
    streams = [
        torch.cat([images, text], 1),
        torch.cat([network.state_proj(inputs.state)[:, None], network._embed_actions(x_t, time)], 1),
    ]
    num_prefix, num_suffix = streams[0].shape[1], streams[1].shape[1]
    valid = torch.cat(
        [
            torch.ones(batch, images.shape[1], dtype=torch.bool),
            inputs.token_valid,
            torch.ones(batch, num_suffix, dtype=torch.bool),
        ],
        1,
    )
    autoregressive = torch.tensor([0] * num_prefix + [1, 1] + [0] * (num_suffix - 2)).cumsum(0)
    allowed = (autoregressive[None, :] <= autoregressive[:, None])[None] & valid[:, None, :]
    rope = rope_table(valid.cumsum(1) - 1, policy.config.language.head_dim, torch.float32)
    for layers in zip(backbone.language_model.layers, expert.layers, strict=True):
        projected = []
        for layer, x in zip(layers, streams, strict=True):
            normed, _ = layer.input_layernorm(x)
            attention = layer.self_attn
            projected.append(
                [attention._split(p(normed)) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
            )
        query, key, value = (torch.cat([p[i] for p in projected], 2) for i in range(3))
        scores = rotate(query, rope) @ rotate(key, rope).transpose(2, 3) / policy.config.language.head_dim**0.5
        weights = scores.masked_fill(~allowed[:, None], -2.3819763e38).softmax(-1)
        attended = (weights @ value).transpose(1, 2).flatten(2)
        for number, (layer, part) in enumerate(zip(layers, attended.split([num_prefix, num_suffix], 1), strict=True)):
            x = streams[number] + layer.self_attn.o_proj(part)
            streams[number] = x + layer.mlp(layer.post_attention_layernorm(x)[0])
    return network.action_out_proj(expert.norm(streams[1])[0][:, 1:])


def test_two_passes_equal_the_joint_attention_of_the_paper(policy, batch):
    inputs = policy.prepare(**batch)
    x_t, time = torch.randn(4, 6, 4), torch.rand(4)
    network = policy.network
    torch.testing.assert_close(
        network.velocity(network.encode(inputs), inputs.state, x_t, time),
        naive_velocity(policy, inputs, x_t, time),
        rtol=1e-5,
        atol=1e-5,
    )


def test_draws_that_share_a_prefix_equal_draws_made_alone(policy, batch):
    inputs = policy.prepare(**batch)
    noise = torch.randn(4, 3, 6, 4)
    together = policy.network.sample(inputs, noise)
    alone = torch.cat([policy.network.sample(inputs, noise[:, i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(together, alone)


def test_padding_of_the_prompt_does_not_change_the_velocity(config, spec, tokenizer, batch):
    policy = make_policy(config, spec, tokenizer)
    inputs = policy.prepare(**batch)
    shorter = dataclasses.replace(inputs, tokens=inputs.tokens[:, :16], token_valid=inputs.token_valid[:, :16])
    assert not inputs.token_valid[:, 16:].any()
    x_t, time = torch.randn(4, 6, 4), torch.rand(4)
    velocities = [policy.network.velocity(policy.network.encode(i), i.state, x_t, time) for i in (inputs, shorter)]
    torch.testing.assert_close(*velocities, rtol=1e-5, atol=1e-5)


def test_an_absent_camera_has_no_influence(policy, batch):
    inputs = policy.prepare(**batch)
    valid = inputs.image_valid.clone()
    valid[:, 1] = False
    noise = torch.randn(4, 1, 6, 4)
    changed = inputs.images.clone()
    changed[:, 1] = 0.7
    samples = [
        policy.network.sample(dataclasses.replace(inputs, images=images, image_valid=valid), noise)
        for images in (inputs.images, changed)
    ]
    torch.testing.assert_close(*samples)


def test_one_batch_is_overfitted_and_its_actions_come_back(policy, batch):
    actions = torch.randn(4, 6, 3) * 0.5
    is_pad = torch.zeros(4, 6, dtype=torch.bool)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(300):
        loss = policy.flow_loss(policy.prepare(**batch), actions, is_pad, noise_samples=4, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < 0.1 * losses[0]
    np.testing.assert_allclose(policy.act(**batch, generator=generator), actions, atol=0.25)


def test_the_prompt_alone_changes_the_actions(policy, batch):
    swapped = {**batch, "prompts": batch["prompts"][::-1]}
    actions = [policy.act(**b, generator=torch.Generator().manual_seed(1)) for b in (batch, swapped)]
    assert np.abs(actions[0] - actions[1]).max() > 1e-4


def test_delta_actions_are_relative_except_for_grippers(config, spec, tokenizer):
    policy = make_policy(dataclasses.replace(config, delta_actions=True), spec, tokenizer)
    identity = NormStats(mean=[0.0] * 3, std=[1.0 - 1e-6] * 3)
    policy.set_norm_stats({"state": identity, "actions": identity})
    state, actions = torch.tensor([[1.0, 2.0, 0.3]]), torch.tensor([[[1.5, 1.0, 0.9]]])
    target = policy.normalize_actions(actions, state)
    torch.testing.assert_close(target, torch.tensor([[[0.5, -1.0, 0.9, 0.0]]]))
    torch.testing.assert_close(policy.unnormalize_actions(target, state), actions)


def test_normalisation_uses_openpis_formulas():
    stats = NormStats(mean=[1.0], std=[2.0], q01=[-1.0], q99=[3.0])
    values = torch.tensor([[5.0]])
    assert Normalizer(stats, "zscore", values.device).normalize(values).item() == pytest.approx(4 / (2 + 1e-6))
    quantile = Normalizer(stats, "quantile", values.device)
    assert quantile.normalize(values).item() == pytest.approx(6 / (4 + 1e-6) * 2 - 1)
    torch.testing.assert_close(quantile.unnormalize(quantile.normalize(values)), values)


def test_a_joint_that_never_moved_is_not_scaled_by_a_million():
    stats = with_least_std(NormStats(mean=[0.0, 0.0], std=[0.0, 0.5]))
    assert stats.std == [0.01, 0.5]


def test_a_saved_policy_gives_the_same_actions_after_loading(policy, batch, tmp_path):
    save_policy(policy, tmp_path)
    loaded = load_policy(tmp_path)
    assert loaded.config == policy.config
    assert loaded.spec == policy.spec
    actions = [p.act(**batch, generator=torch.Generator().manual_seed(2)) for p in (policy, loaded)]
    np.testing.assert_array_equal(*actions)


def test_the_hash_of_a_policy_follows_its_weights(policy, tmp_path):
    save_policy(policy, tmp_path / "a")
    save_policy(policy, tmp_path / "b")
    assert policy_hash(tmp_path / "a") == policy_hash(tmp_path / "b")
    with torch.no_grad():
        policy.network.state_proj.bias[0] += 1
    save_policy(policy, tmp_path / "c")
    assert policy_hash(tmp_path / "a") != policy_hash(tmp_path / "c")


def test_weights_that_do_not_fit_are_listed_and_stop_the_load(policy, config, spec, tokenizer, tmp_path):
    save_policy(policy, tmp_path)
    larger = dataclasses.replace(config, max_action_dim=9)
    save_policy(Pi0Policy(larger, spec, tokenizer), tmp_path / "larger")
    (tmp_path / "config.json").write_bytes((tmp_path / "larger" / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"action_in_proj\.weight: expected \(32, 9\), got \(32, 4\)"):
        load_policy(tmp_path)


def test_a_directory_without_a_policy_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint_path"):
        load_policy(tmp_path)


def test_acting_without_statistics_says_what_to_do(config, spec, tokenizer, batch):
    with pytest.raises(PolicyError, match="norm_stats"):
        Pi0Policy(config, spec, tokenizer).act(**batch)


def test_a_robot_wider_than_the_policy_is_refused(config, spec, tokenizer):
    with pytest.raises(ConfigError, match="3 state and 3 action"):
        Pi0Policy(dataclasses.replace(config, max_state_dim=2), spec, tokenizer)


def test_actions_that_are_not_finite_are_never_returned(policy, batch):
    with torch.no_grad():
        policy.network.action_out_proj.bias[0] = float("nan")
    with pytest.raises(PolicyError, match="not finite"):
        policy.act(**batch)


def test_the_tokenizer_cleans_adds_bos_and_newline_and_pads(tokenizer):
    ids, valid = tokenizer(["put_the red\ncube", "put the red cube"])
    np.testing.assert_array_equal(ids[0], ids[1])
    assert ids[0, 0] == 2
    assert valid[0].sum() < 24
    assert (ids[0, ~valid[0]] == 0).all()


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(180, 320, (49, 174), (0, 223)), (100, 50, (0, 223), (56, 167)), (18, 9, (0, 222), (56, 166))],
)
def test_resizing_keeps_the_shape_and_pads_as_published(height, width, rows, columns):
    inside = resize_with_pad(torch.ones(1, 1, 3, height, width), 224)[0, 0, 0] > 0
    assert (inside.any(1).nonzero().min().item(), inside.any(1).nonzero().max().item()) == rows
    assert (inside.any(0).nonzero().min().item(), inside.any(0).nonzero().max().item()) == columns


@pytest.mark.parametrize(("like", "border"), [("openpi", -1.0), ("lerobot", -3.0)])
def test_augmentation_leaves_the_border_as_it_is_when_acting(like, border):
    images = torch.rand(2, 1, 3, 8, 16) - 0.5
    changed = resize_with_pad(images, 16, like, change=lambda picture: augment(picture, torch.Generator()))
    plain = resize_with_pad(images, 16, like)
    assert (changed[..., :4, :] == border).all()
    assert (plain[..., :4, :] == border).all()
    assert not torch.allclose(changed, plain)


@pytest.mark.parametrize(("loss_dims", "width"), [("all", 4), ("robot", 3)])
def test_padded_ticks_never_count_and_padded_dimensions_do_by_default(config, spec, tokenizer, batch, loss_dims, width):
    policy = make_policy(dataclasses.replace(config, loss_dims=loss_dims), spec, tokenizer)
    actions, is_pad = torch.zeros(4, 6, 3), torch.zeros(4, 6, dtype=torch.bool)
    is_pad[0, 2:] = True
    error = policy.flow_loss(policy.prepare(**batch), actions, is_pad)
    assert error.shape == (4, 1, 6, width)
    assert (error[0, 0, 2:] == 0).all()
    assert (error[1] > 0).all()
