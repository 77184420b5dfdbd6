from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from learner.algorithms.build import build_algorithm
from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from learner.trainer.start import starting_gaussian, starting_policy
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.types import Outcome


@pytest.fixture(name="dataset")
def fixture_dataset(run):
    run.record(*[Outcome.SUCCESS] * 4, root=run.demonstrations)
    return ReplayDataset(run.demonstrations)


def weights_after(run, dataset, *, num_parts, num_updates=3):
    run.config.training.gradient_accumulation_steps = num_parts
    run.config.algo.noise_samples = 2
    # AdamW turns the rounding error of a gradient that is zero into a step of full size; a larger eps does not.
    run.config.algo.optimizer.eps = 1e-4
    policy = starting_policy(run.config, [dataset])
    algorithm = build_algorithm(run.config, policy, Accelerator(cpu=True), seed=0)
    sampler = ChunkSampler(dataset, horizon=4, cameras=dataset.camera_names)
    batch = sampler.sample(torch.arange(32).numpy())
    losses = [algorithm.update(batch)["loss"] for _ in range(num_updates)]
    return losses, [parameter.detach() for parameter in policy.parameters()]


def test_four_parts_of_eight_equal_one_batch_of_32(run, dataset):
    losses, whole = weights_after(run, dataset, num_parts=1)
    other_losses, parts = weights_after(run, dataset, num_parts=4)
    torch.testing.assert_close(torch.tensor(other_losses), torch.tensor(losses), rtol=1e-5, atol=1e-6)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def critics_and_policy_after(run, dataset, *, num_parts):
    run.config.training.gradient_accumulation_steps = num_parts
    start = starting_gaussian if run.config.algo.name == "sac" else starting_policy
    torch.manual_seed(0)
    algorithm = build_algorithm(run.config, start(run.config, [dataset]), Accelerator(cpu=True), seed=0)
    wanted = algorithm.sampling
    sampler = ChunkSampler(
        dataset, horizon=wanted.horizon, cameras=dataset.camera_names, discount=wanted.discount, with_next=True,
        return_horizon=wanted.return_horizon,
    )  # fmt: skip
    batch = sampler.sample(torch.arange(16).numpy())
    metrics = [algorithm.update(batch) for _ in range(3)]
    assert "actor_loss" in metrics[0]
    return metrics, [tensor.clone() for tensor in algorithm.state()[0].values()], list(algorithm.policy.parameters())


@pytest.mark.parametrize(
    ("name", "sac"),
    [("sac", {"cql_weight": 1.0}), ("sac_pi0", {"distill_weight": 1.0}),
     ("sac_pi0", {"sampler": "sde", "critic_features": "parts", "cql_weight": 1.0})],
    ids=["gaussian", "flow", "paths"],
)  # fmt: skip
def test_critics_and_policy_accumulate_too(run, dataset, name, sac):
    config, careful = run.config, OptimizerConfig(lr=1e-3, schedule="constant", num_warmup_steps=0, eps=1e-4)
    config.actor.execution_horizon = 2
    config.algo.name, config.algo.sft_steps = name, 0 if name == "sac" else 1
    config.algo.optimizer = config.algo.critic_optimizer = config.algo.temperature_optimizer = careful
    config.algo.sac = replace(config.algo.sac, hidden_dims=[16], image_features=4, **sac)
    metrics, state, weights = critics_and_policy_after(run, dataset, num_parts=1)
    other_metrics, other_state, other_weights = critics_and_policy_after(run, dataset, num_parts=4)
    for one, other in zip(metrics, other_metrics, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip([*state, *weights], [*other_state, *other_weights], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
