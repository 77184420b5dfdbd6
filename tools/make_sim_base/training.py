"""The two lessons of the base policy: to point, then to act."""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.losses.flow_matching import flow_matching_loss
from learner.trainer.optimization import LR_RATIO, build_optimizers
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.networks.pi0 import ModelInputs, sample_flow_time
from serl_launcher.policies import Pi0Policy
from tools.make_sim_base.play import PlayBatch, PlaySampler

logger = logging.getLogger(__name__)

NOISE_SAMPLES = 4
EMA_DECAY = 0.995
LOG_EVERY = 100
POINTING_WEIGHT = 0.5
"""Of pointing while the second lesson goes on."""


class Lessons(nn.Module):
    """A policy with a head that points; the head is thrown away afterwards."""

    def __init__(self, policy: Pi0Policy, seed: int) -> None:
        super().__init__()
        self.policy = policy
        self.num_points = 2 * len(policy.spec.cameras)
        self.pointer = nn.Linear(policy.config.language.width, 3 * self.num_points)
        self._generator = torch.Generator().manual_seed(seed)

    def pointing_loss(self, batch: PlayBatch) -> Tensor:
        """Returns the mean distance of visible points, plus a term for what is visible."""
        features = self.policy.network.encode_with_features(self._inputs(batch))[1]
        return self._pointing(features, batch)

    def acting_loss(self, batch: PlayBatch) -> Tensor:
        """Returns the flow-matching loss plus pointing on the same pass of the prefix."""
        policy, inputs = self.policy, self._inputs(batch)
        prefix, features = policy.network.encode_with_features(inputs)
        target = policy.normalize_actions(torch.from_numpy(batch.actions), torch.from_numpy(batch.state))
        shape = (len(target), NOISE_SAMPLES)
        noise = torch.randn((*shape, *target.shape[1:]), generator=self._generator)
        t = sample_flow_time(shape, self._generator, target.device)
        error = policy.network.flow_error_from(prefix, inputs.state, target, noise=noise, time=t)
        is_pad = torch.from_numpy(batch.is_pad)
        acting = flow_matching_loss(error * ~is_pad[:, None, :, None], is_pad)
        return acting + POINTING_WEIGHT * self._pointing(features, batch)

    def _inputs(self, batch: PlayBatch) -> ModelInputs:
        return self.policy.prepare(batch.images, batch.state, batch.prompts)

    def _pointing(self, features: Tensor, batch: PlayBatch) -> Tensor:
        points = torch.from_numpy(batch.points).flatten(1, 2)
        predicted = self.pointer(features).view(-1, self.num_points, 3)
        visible = points[..., 2]
        distance = ((predicted[..., :2] - points[..., :2]).abs().sum(-1) * visible).sum() / (2 * visible.sum())
        return distance + 0.1 * F.binary_cross_entropy_with_logits(predicted[..., 2], visible)


def learn(
    lessons: Lessons,
    loss_of: Callable[[PlayBatch], Tensor],
    sampler: PlaySampler,
    *,
    num_updates: int,
    batch_size: int,
    peak_lr: float,
) -> None:
    """Makes updates with warm-up and cosine decay; leaves the averaged weights in the policy."""
    config = OptimizerConfig(name="muon", lr=peak_lr, muon_lr_ratio=3.0, weight_decay=1e-4)
    optimizers = build_optimizers(lessons, config)
    parameters = [parameter.detach() for parameter in lessons.parameters()]
    averaged = [parameter.clone() for parameter in parameters]
    started, losses = time.monotonic(), []
    for update in range(num_updates):
        rate = peak_lr * min(1.0, (update + 1) / 50) * (0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * update / num_updates)))
        for optimizer in optimizers:
            group = optimizer.param_groups[0]
            group["lr"] = rate * group.get(LR_RATIO, 1.0)
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(sampler.draw(batch_size))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lessons.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for average, parameter in zip(averaged, parameters, strict=True):
            average.lerp_(parameter, 1 - min(EMA_DECAY, update / (update + 10)))
        losses.append(loss.item())
        if update % LOG_EVERY == LOG_EVERY - 1:
            speed = (update + 1) / (time.monotonic() - started)
            recent = float(np.mean(losses[-LOG_EVERY:]))
            logger.info("Update %d of %d, loss %.4f, %.1f updates/s.", update + 1, num_updates, recent, speed)
    with torch.no_grad():
        for parameter, average in zip(parameters, averaged, strict=True):
            parameter.copy_(average)
