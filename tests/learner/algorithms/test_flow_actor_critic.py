from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from learner.algorithms.build import build_algorithm
from learner.algorithms.flow_actor import Lesson, rated
from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from learner.trainer.guard import NotFinite
from learner.trainer.start import starting_policy
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.config.tuning import TuningConfig
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import ConfigError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.policies import load_policy
from serl_launcher.types import Outcome
from tests.learner.conftest import SPEC


@pytest.fixture(name="dataset")
def fixture_dataset(run):
    run.record(Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS)
    run.config.algo.name = "sac_pi0"
    run.config.actor.execution_horizon = 2
    run.config.algo.critic_optimizer = OptimizerConfig(lr=1e-2, schedule="constant", num_warmup_steps=0)
    run.config.algo.sac.hidden_dims = [16]
    run.config.algo.sac.image_features = 4
    run.config.algo.sac.discount = 0.5
    return ReplayDataset(run.directory.replay)


def build(run, dataset, policy=None, seed=0):
    torch.manual_seed(0)
    policy = starting_policy(run.config, [dataset]) if policy is None else policy
    return build_algorithm(run.config, policy, Accelerator(cpu=True), seed=seed)


def batch_of(algorithm, dataset, steps):
    wanted = algorithm.sampling
    sampler = ChunkSampler(
        dataset, horizon=wanted.horizon, cameras=dataset.camera_names, discount=wanted.discount,
        with_next=wanted.with_next, return_horizon=wanted.return_horizon,
    )  # fmt: skip
    return sampler.sample(np.asarray(steps))


def snapshot(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def is_same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_rewards_count_until_the_next_decision(run, dataset):
    algorithm = build(run, dataset)
    batch = batch_of(algorithm, dataset, [0, 6, 7, 14])
    assert batch.actions.shape == (4, 4, 3)
    assert batch.reward.tolist() == [0.0, 0.5, 1.0, 0.0]
    assert batch.discount.tolist() == [0.25, 0.0, 0.0, 0.0]
    assert batch.is_successful.tolist() == [True, True, True, False]
    assert batch.next_state[0].tolist() == dataset.steps.state[2].tolist()


@pytest.mark.parametrize("features", ["own", "mean"])
def test_critics_see_the_state_normalised_as_the_policy_does(run, dataset, features):
    run.config.algo.sac = replace(run.config.algo.sac, critic_features=features)
    algorithm = build(run, dataset)
    known = algorithm.policy.norm_stats["state"]
    for critics in (algorithm._critics, algorithm._target.module):
        torch.testing.assert_close(critics.encoder.state_norm.mean, torch.tensor(known.mean))
        torch.testing.assert_close(critics.encoder.state_norm.std, torch.tensor(known.std).clamp(min=0.01))
    assert algorithm._critics.encoder.state_norm(torch.tensor([known.mean])).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("features", ["own", "mean", "parts"])
def test_critics_know_what_was_asked_for(run, dataset, features):
    run.config.algo.sac = replace(run.config.algo.sac, critic_features=features)
    algorithm = build(run, dataset)
    batch = batch_of(algorithm, dataset, range(4))
    values = []
    for prompt in ("open the drawer", "open the drawer", "close the door"):
        asked = replace(batch, prompts=[prompt] * 4)
        sample = algorithm._sample(asked, draws=False, encoding=algorithm._encode(asked))
        values.append(algorithm._critics.value(algorithm._critics.features(*sample.observed), sample.actions))
    assert torch.equal(values[0], values[1])
    assert not torch.isclose(values[0], values[2]).any()


def test_a_terminal_chunk_is_worth_its_reward(run, dataset):
    algorithm = build(run, dataset)
    sample = algorithm._sample(batch_of(algorithm, dataset, [6, 7]), draws=False)
    assert sample.target.tolist() == [0.5, 1.0]
    assert sample.actions.shape == (2, 2 * 3)


def test_a_critic_only_update_changes_no_byte_of_the_policy(run, dataset):
    run.config.algo.sac.cta_ratio = 2
    algorithm = build(run, dataset)
    before = snapshot(algorithm.policy)
    algorithm.update(batch_of(algorithm, dataset, range(4)))
    assert is_same(before, snapshot(algorithm.policy))
    algorithm.update(batch_of(algorithm, dataset, range(4)))
    assert not is_same(before, snapshot(algorithm.policy))


def test_critics_learn_alone_at_first(run, dataset):
    run.config.algo.sac.actor_training_starts = 1
    algorithm = build(run, dataset)
    before = snapshot(algorithm.policy)
    algorithm.update(batch_of(algorithm, dataset, range(4)))
    assert is_same(before, snapshot(algorithm.policy))


def test_a_policy_update_that_failed_is_due_until_it_succeeds(run, dataset):
    run.config.algo.sac.cta_ratio, run.config.algo.sac.distill_weight = 2, 1.0
    algorithm = build(run, dataset)
    batch = batch_of(algorithm, dataset, range(4))
    algorithm.update(batch)
    run.config.algo.sac.distill_weight = float("nan")
    for _ in range(3):
        with pytest.raises(NotFinite):
            algorithm.update(batch)
    run.config.algo.sac.distill_weight = 1.0
    assert ["actor_loss" in algorithm.update(batch) for _ in range(2)] == [True, True]
    assert algorithm.num_updates == 3


def test_supervised_updates_of_a_cycle_leave_the_critics_alone(run, dataset):
    run.config.algo.rl_steps, run.config.algo.sft_steps = 1, 2
    algorithm = build(run, dataset)
    batch = batch_of(algorithm, dataset, range(4))
    seen = []
    for _ in range(6):
        before = snapshot(algorithm._critics)
        algorithm.update(batch)
        seen.append(is_same(before, snapshot(algorithm._critics)))
    assert seen == [False, True, True] * 2


def test_failed_episodes_teach_the_critics_but_are_not_cloned(run, dataset):
    run.config.algo.rl_steps, run.config.algo.sft_steps = 0, 1
    algorithm = build(run, dataset)
    before = snapshot(algorithm.policy)
    metrics = algorithm.update(batch_of(algorithm, dataset, range(8, 12)))
    assert metrics["loss"] == 0.0
    assert is_same(before, snapshot(algorithm.policy)) or metrics["grad_norm"] == 0.0
    assert algorithm.update(batch_of(algorithm, dataset, range(4)))["loss"] > 0


def test_the_policy_climbs_the_critics(run, dataset):
    run.config.algo.optimizer = OptimizerConfig(lr=1e-2, schedule="constant", num_warmup_steps=0)
    algorithm = build(run, dataset)
    batch = batch_of(algorithm, dataset, range(8))
    sample = algorithm._sample(batch, draws=False)

    def value():
        inputs = algorithm.policy.prepare(batch.images, batch.state, batch.prompts)
        noise = torch.zeros(8, 1, 4, 3)
        with torch.no_grad():
            chunk = algorithm.policy.network.sample(inputs, noise)[:, 0]
            features = algorithm._critics.features(*sample.observed)
            return algorithm._critics.value(features, rated(chunk, 2)).min(dim=0).values.mean().item()

    before = value()
    for parameter in algorithm._critics.parameters():
        parameter.requires_grad_(requires_grad=False)
    algorithm._config.sac.actor_training_starts = -1
    rates = algorithm._critic._config
    rates.lr = rates.decay_lr = 0.0
    for _ in range(15):
        algorithm._actor.update([lesson_of(algorithm, batch, sample)], algorithm._actor.module)
    assert value() > before


def lesson_of(algorithm, batch, sample):
    inputs = algorithm.policy.prepare(batch.images, batch.state, batch.prompts)
    return Lesson(inputs=inputs, noise=algorithm._noise(len(batch)), observed=sample.observed)


def test_a_heavy_distillation_holds_the_policy_at_its_beginning(run, dataset):
    moved = []
    for weight in (0.1, 1000.0):
        run.config.algo.sac.distill_weight = weight
        run.config.algo.optimizer = OptimizerConfig(lr=1e-3, schedule="constant", num_warmup_steps=0, max_grad_norm=1e9)
        algorithm = build(run, dataset)
        batch = batch_of(algorithm, dataset, range(8))
        for _ in range(10):
            algorithm.update(batch)
        inputs = algorithm.policy.prepare(batch.images, batch.state, batch.prompts)
        noise = torch.zeros(8, 1, 4, 3)
        with torch.no_grad():
            one, other = (each.network.sample(inputs, noise) for each in (algorithm.policy, algorithm._reference))
        moved.append((one - other).abs().mean().item())
    assert moved[1] < moved[0]


@pytest.mark.parametrize(
    "sac", [{"distill_weight": 1.0}, {"sampler": "sde", "critic_features": "parts"}], ids=["distilled", "paths"]
)
def test_a_saved_run_makes_the_same_next_update(run, dataset, tmp_path, sac):
    run.config.algo.sac = replace(run.config.algo.sac, **sac)
    run.config.algo.sac.cql_weight = 0.5
    run.config.algo.optimizer.ema = 0.9
    first = build(run, dataset)
    batch = batch_of(first, dataset, range(4))
    for _ in range(3):
        first.update(batch)
    first.save_policy(tmp_path / "policy")
    tensors, scalars = first.state()
    tensors = {key: value.detach().clone() for key, value in tensors.items()}
    other = build(run, dataset, load_policy(tmp_path / "policy"), seed=9)
    other.load_state(tensors, scalars)
    assert first.update(batch) == other.update(batch)
    assert is_same(snapshot(first.policy), snapshot(other.policy))
    assert is_same(snapshot(first._target.module), snapshot(other._target.module))


def test_more_actions_than_the_policy_predicts_are_refused(run, dataset):
    run.config.actor.execution_horizon = 5
    with pytest.raises(ConfigError, match="execution_horizon"):
        build(run, dataset)


def test_a_corrected_label_changes_the_rewards(run, dataset):
    run.config.algo.sac.reward_from = "label"
    algorithm = build(run, dataset)
    wanted = algorithm.sampling
    sampler = ChunkSampler(
        dataset, horizon=4, cameras=dataset.camera_names, discount=wanted.discount, with_next=True, return_horizon=2,
        rewards_from_labels=wanted.rewards_from_labels,
    )  # fmt: skip
    last = np.array([7, 15])
    assert sampler.sample(last).reward.tolist() == [1.0, 0.0]
    label = EpisodeLabelled(dataset.episode_id(1), Outcome.SUCCESS, "human", 0.0)
    DatasetWriter(run.directory.replay, SPEC).relabel(label.episode_id, label)
    assert dataset.refresh()
    assert sampler.sample(last).reward.tolist() == [1.0, 1.0]


def path_lesson(run, dataset, sampler):
    run.config.algo.sac = replace(run.config.algo.sac, sampler=sampler, sampler_noise=0.5)
    algorithm = build(run, dataset)
    batch = batch_of(algorithm, dataset, range(4))
    return algorithm, algorithm.policy.prepare(batch.images, batch.state, batch.prompts), algorithm._noise(len(batch))


@pytest.mark.parametrize("sampler", ["sde", "injected"])
def test_a_policy_does_not_diverge_from_itself(run, dataset, sampler):
    algorithm, inputs, noise = path_lesson(run, dataset, sampler)
    assert noise.shape[1] == 1 + algorithm.policy.config.num_steps
    drawn = algorithm._flow_actor.drawing.draw(inputs, noise)
    torch.testing.assert_close(drawn.divergence, torch.zeros(4), atol=1e-6, rtol=0)


def test_the_divergence_of_a_shifted_flow_by_hand(run, dataset):
    """Every velocity is 0.3 higher, hence every mean d = -0.3 / K; with deviation s: noise * d / s + d^2 / (2 s^2)."""
    algorithm, inputs, noise = path_lesson(run, dataset, "injected")
    with torch.no_grad():
        algorithm.policy.network.action_out_proj.bias += 0.3
    drawn = algorithm._flow_actor.drawing.draw(inputs, noise)
    steps = algorithm.policy.config.num_steps
    shift, std = -0.3 / steps, 0.5 / steps**0.5
    expected = noise[:, 1:].flatten(1).mean(dim=1) * shift / std + shift**2 / (2 * std**2)
    torch.testing.assert_close(drawn.divergence, expected, atol=1e-5, rtol=1e-4)


def test_a_policy_that_diverges_too_far_is_held_by_a_rising_temperature(run, dataset):
    run.config.algo.temperature_optimizer = OptimizerConfig(lr=1e-2, schedule="constant", num_warmup_steps=0)
    run.config.algo.sac.actor_training_starts = -1
    algorithm, _, _ = path_lesson(run, dataset, "injected")
    with torch.no_grad():
        algorithm.policy.network.action_out_proj.bias += 2.0
    metrics = algorithm.update(batch_of(algorithm, dataset, range(4)))
    assert metrics["divergence"] > algorithm._config.sac.target_divergence
    assert algorithm._temperature_module.value > run.config.algo.sac.temperature_init


def test_a_divergence_lowers_what_follows(run, dataset):
    algorithm, _, _ = path_lesson(run, dataset, "injected")
    batch = batch_of(algorithm, dataset, [0, 1])
    with torch.no_grad():
        algorithm.policy.network.action_out_proj.bias += 2.0
    targets = []
    for counts in (False, True):
        algorithm._config.sac.backup_entropy = counts
        algorithm._generator.manual_seed(5)
        targets.append(algorithm._sample(batch, draws=False).target)
    assert (targets[1] < targets[0]).all()


@pytest.mark.parametrize("features", ["mean", "parts"])
def test_critics_on_the_backbone_do_not_train_it(run, dataset, features):
    run.config.algo.sac = replace(run.config.algo.sac, critic_features=features, actor_training_starts=1)
    algorithm = build(run, dataset)
    before, critics = snapshot(algorithm.policy), snapshot(algorithm._critics)
    batch = batch_of(algorithm, dataset, range(4))
    algorithm.update(batch)
    assert is_same(before, snapshot(algorithm.policy))
    assert not is_same(critics, snapshot(algorithm._critics))
    algorithm.update(batch)
    assert not is_same(before, snapshot(algorithm.policy))


@pytest.mark.parametrize(("expert_only", "passes"), [(True, 2), (False, 3)])
def test_a_frozen_backbone_sees_every_observation_once_per_update(run, dataset, expert_only, passes):
    run.config.algo.sac = replace(run.config.algo.sac, critic_features="mean")
    run.config.policy = replace(run.config.policy, tuning=TuningConfig(expert_only=expert_only))
    algorithm = build(run, dataset)
    seen = []
    tower = algorithm.policy.network.paligemma_with_expert.paligemma.model.vision_tower.vision_model
    tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    assert "actor_loss" in algorithm.update(batch_of(algorithm, dataset, range(4)))
    assert len(seen) == passes


def test_what_critics_have_seen_changes_nothing_of_the_actors_loss(run, dataset):
    run.config.algo.sac = replace(run.config.algo.sac, critic_features="mean")
    run.config.policy = replace(run.config.policy, tuning=TuningConfig(expert_only=True))
    algorithm = build(run, dataset)
    batch = batch_of(algorithm, dataset, range(4))
    encoding = algorithm._encode(batch)
    sample = algorithm._sample(batch, draws=False, encoding=encoding)
    lesson = Lesson(
        inputs=algorithm.policy.prepare(batch.images, batch.state, batch.prompts), noise=algorithm._noise(4),
        observed=sample.observed,
    )  # fmt: skip
    losses = [algorithm._flow_actor(each) for each in (lesson, replace(lesson, encoding=encoding))]
    torch.testing.assert_close(*losses)


def test_distillation_and_divergence_exclude_each_other(run):
    with pytest.raises(ConfigError, match="target_divergence"):
        replace(run.config.algo.sac, sampler="sde", distill_weight=1.0)
