import pytest
import torch
from accelerate import Accelerator

from learner.algorithms.build import build_algorithm
from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from learner.trainer.start import starting_policy
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
