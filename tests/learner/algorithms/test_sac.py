from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from learner.algorithms.build import build_algorithm
from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from learner.replay.transitions import TransitionMemory
from learner.trainer.guard import NotFinite
from learner.trainer.start import draw_gaussian
from serl_launcher.config import RunConfig
from serl_launcher.config.sac import GripperConfig, SacConfig
from serl_launcher.config.training import AlgoConfig, OptimizerConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies.gaussian import load_gaussian
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation, Outcome
from tests.recorded_episodes import robot

SPEC = RobotSpec(
    name="line", cameras=(), state_names=("x", "opening"), action_names=("push", "gripper"), action_low=(-2.0, 0.0),
    action_high=(2.0, 1.0), control_hz=10.0,
)  # fmt: skip


def config_of(**sac):
    def adam():
        return OptimizerConfig(lr=1e-2, betas=[0.9, 0.999], schedule="constant", num_warmup_steps=0)

    algo = AlgoConfig(
        name="sac", batch_size=32, optimizer=adam(), critic_optimizer=adam(), temperature_optimizer=adam(),
        sac=SacConfig(**{"hidden_dims": [16], "image_shift": 1, **sac}),
    )  # fmt: skip
    return RunConfig(algo=algo)


def build(config, spec=SPEC, part=(0, 1)):
    torch.manual_seed(0)
    policy = draw_gaussian(config, spec)
    return policy, build_algorithm(config, policy, Accelerator(cpu=True), seed=0, part=part)


def memory(discount=0.9, count=64):
    """One-step episodes: pushing to the right earns, and ends it."""
    rng, kept = np.random.default_rng(0), TransitionMemory(SPEC, capacity=1000, discount=discount)
    for _ in range(count):
        action = rng.uniform(*SPEC.action_bounds()).astype(np.float32)
        here = Observation(images={}, state=np.array([0.0, rng.integers(2)], np.float32), prompt="")
        kept.add(here, action, float(action[0]), here, terminated=True)
    return kept


def batch_of(kept, seed=0):
    return kept.sample(np.random.default_rng(seed), 32)


def snapshot(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def is_same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_policy_learns_what_earns():
    policy, algorithm = build(config_of(temperature_init=0.01))
    kept = memory()
    for seed in range(150):
        algorithm.update(batch_of(kept, seed))
    action = policy.act(np.zeros((1, 0, 1, 1, 3), np.uint8), np.zeros((1, 2), np.float32), [""], is_greedy=True)
    assert action.shape == (1, 1, 2)
    assert action[0, 0, 0] > 1.0


def test_a_critic_only_update_changes_no_byte_of_the_actor():
    policy, algorithm = build(config_of(cta_ratio=2))
    before, critics = snapshot(policy.actor), snapshot(algorithm._critics)
    metrics = algorithm.update(batch_of(memory()))
    assert is_same(before, snapshot(policy.actor))
    assert not is_same(critics, snapshot(algorithm._critics))
    assert "actor_loss" not in metrics
    algorithm.update(batch_of(memory()))
    assert not is_same(before, snapshot(policy.actor))


def test_an_actor_update_changes_no_byte_of_the_critics():
    _, algorithm = build(config_of())
    sample = algorithm._sample(batch_of(memory()))
    before = snapshot(algorithm._critics)
    algorithm._update_actor(sample)
    assert is_same(before, snapshot(algorithm._critics))
    assert all(parameter.requires_grad for parameter in algorithm._critics.parameters())


def test_critics_learn_alone_at_first():
    policy, algorithm = build(config_of(actor_training_starts=2))
    before = snapshot(policy.actor)
    for _ in range(2):
        algorithm.update(batch_of(memory()))
    assert is_same(before, snapshot(policy.actor))
    algorithm.update(batch_of(memory()))
    assert not is_same(before, snapshot(policy.actor))


def test_an_actor_update_that_failed_is_due_until_it_succeeds():
    _, algorithm = build(config_of(cta_ratio=3, backup_entropy=False))
    log_temperature = algorithm._temperature_module.log_value.data
    log_temperature.fill_(float("nan"))
    for _ in range(2):
        algorithm.update(batch_of(memory()))
    for _ in range(3):
        with pytest.raises(NotFinite):
            algorithm.update(batch_of(memory()))
    log_temperature.fill_(0.0)
    learned = ["actor_loss" in algorithm.update(batch_of(memory())) for _ in range(4)]
    assert learned == [True, False, False, True]


def test_terminal_steps_are_worth_their_scaled_reward():
    _, algorithm = build(config_of(reward_scale=2.0, reward_bias=-1.0))
    batch = batch_of(memory())
    target = algorithm._sample(batch).target
    torch.testing.assert_close(target, 2 * torch.from_numpy(batch.reward) - 1)


def test_the_target_counts_entropy_only_where_asked():
    batch = batch_of(memory())
    batch.discount[:] = 0.9
    targets = [build(config_of(backup_entropy=flag))[1]._sample(batch).target for flag in (True, False)]
    assert not torch.equal(*targets)


def test_a_subset_of_critics_makes_a_higher_target_on_average():
    batch = batch_of(memory())
    batch.discount[:] = 1.0
    whole = build(config_of(critic_ensemble_size=6))[1]._sample(batch).target.mean()
    one = build(config_of(critic_ensemble_size=6, critic_subsample_size=1))[1]
    assert np.mean([one._sample(batch).target.mean().item() for _ in range(10)]) > whole


def test_a_saved_run_makes_the_same_next_update(tmp_path):
    kept = memory()
    first_policy, first = build(config_of(critic_ensemble_size=3, critic_subsample_size=2))
    for seed in range(3):
        first.update(batch_of(kept, seed))
    first.save_policy(tmp_path)
    tensors, scalars = first.state()
    tensors = {key: value.detach().clone() for key, value in tensors.items()}
    config = config_of(critic_ensemble_size=3, critic_subsample_size=2)
    other_policy = load_gaussian(tmp_path)
    other = build_algorithm(config, other_policy, Accelerator(cpu=True), seed=9)
    other.load_state(tensors, scalars)
    assert first.update(batch_of(kept, 7)) == other.update(batch_of(kept, 7))
    assert is_same(snapshot(first_policy), snapshot(other_policy))


def test_a_gripper_is_chosen_by_its_own_critic():
    gripper = GripperConfig(action="gripper", state="opening")
    policy, algorithm = build(config_of(gripper=gripper))
    kept = TransitionMemory(SPEC, capacity=100, discount=0.9)
    here = Observation(images={}, state=np.array([0.0, 1.0], np.float32), prompt="")
    for command, reward in ((0.0, 1.0), (0.5, 0.0), (1.0, 0.0)):
        for _ in range(20):
            kept.add(here, np.array([0.0, command], np.float32), reward, here, terminated=True)
    for seed in range(100):
        algorithm.update(batch_of(kept, seed))
    no_image = np.zeros((1, 0, 1, 1, 3), np.uint8)
    action = policy.act(no_image, here.state[None], [""], is_greedy=True)[0, 0]
    assert action[1] == 0.0
    values = policy.gripper(torch.from_numpy(here.state[None]))[0]
    assert values[0].item() == pytest.approx(0.98, abs=0.1)


def test_staying_commands_the_present_opening():
    policy, _ = build(config_of(gripper=GripperConfig(action="gripper", state="opening")))
    with torch.no_grad():
        policy.gripper.layers[-1].bias.copy_(torch.tensor([0.0, 99.0, 0.0]))
    no_image = np.zeros((1, 0, 1, 1, 3), np.uint8)
    action = policy.act(no_image, np.array([[0.0, 0.3]], np.float32), [""], is_greedy=True)[0, 0]
    assert action[1] == pytest.approx(0.3)


def test_an_unknown_gripper_is_refused_with_the_known_dimensions():
    with pytest.raises(ConfigError, match="push"):
        build(config_of(gripper=GripperConfig(action="claw")))


def test_the_conservative_penalty_lowers_what_was_never_tried():
    kept = memory()
    values = []
    for weight in (0.0, 5.0):
        _, algorithm = build(config_of(cql_weight=weight, cql_calibrated=False))
        for seed in range(60):
            algorithm.update(batch_of(kept, seed))
        drawn = 2 * torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) - 1
        values.append(algorithm._critics.value(torch.zeros(200, 2), drawn).mean().item())
    assert values[1] < values[0]


@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_draws_for_its_samples_what_one_process_would(number):
    batch = batch_of(memory())
    columns = {item.name: getattr(batch, item.name) for item in fields(batch)}
    own = replace(batch, **{name: column[number::2] for name, column in columns.items() if column is not None})
    whole = build(config_of(cql_weight=1.0))[1]._sample(batch)
    part = build(config_of(cql_weight=1.0), part=(number, 2))[1]._sample(own)
    for name in ("target", "drawn_actions", "drawn_log_density"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name)[number::2])


def test_images_are_learned_from_as_they_were_recorded(run):
    spec = robot(size=16)
    run.record(*[Outcome.SUCCESS] * 2, root=run.demonstrations)
    dataset = ReplayDataset(run.demonstrations)
    policy, algorithm = build(config_of(image_features=4), spec)
    wanted = algorithm.sampling
    sampler = ChunkSampler(
        dataset, horizon=wanted.horizon, cameras=spec.camera_names, discount=wanted.discount, with_next=wanted.with_next
    )
    before = snapshot(policy.encoder)
    metrics = algorithm.update(sampler.sample(np.arange(16)))
    assert np.isfinite(metrics["loss"])
    assert not is_same(before, snapshot(policy.encoder))


def test_measuring_changes_nothing_that_is_learned():
    results = []
    for measures in (False, True):
        policy, algorithm = build(config_of())
        if measures:
            assert np.isfinite(algorithm.evaluate(batch_of(memory(), 5))["loss"])
        algorithm.update(batch_of(memory()))
        results.append(snapshot(policy))
    assert is_same(*results)
