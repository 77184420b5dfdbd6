"""The two lessons of the base policy: to point, then to act."""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.losses.flow_matching import flow_matching_loss
from learner.trainer.engines import LR_RATIO, build_optimizers
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.networks.pi0 import ModelInputs, sample_flow_time
from serl_launcher.policies import Pi0Policy
from tools.make_sim_base.play import PlayBatch

logger = logging.getLogger(__name__)

NOISE_SAMPLES = 4
EMA_DECAY = 0.995
LOG_EVERY = 100
POINTING_WEIGHT = 0.1
"""Of pointing while the second lesson goes on."""


class Lessons(nn.Module):
    """A policy with a head that points; the head is thrown away afterwards."""

    def __init__(self, policy: Pi0Policy, seed: int) -> None:
        super().__init__()
        self.policy = policy
        self.patches_per_side = policy.config.vision.image_size // policy.config.vision.patch_size
        self.pointer = nn.Linear(policy.config.language.width, 2 * 3)
        self._generator = torch.Generator().manual_seed(seed)

    def pointing_loss(self, batch: PlayBatch) -> Tensor:
        """Returns the loss of finding the named object and place in every picture."""
        return self._pointing(self.policy.network.encode_with_features(self._inputs(batch))[1], batch)

    def acting_loss(self, batch: PlayBatch) -> Tensor:
        """Returns the flow-matching loss plus pointing on the same pass of the prefix."""
        policy, inputs = self.policy, self._inputs(batch)
        prefix, tokens = policy.network.encode_with_features(inputs)
        target = policy.normalize_actions(torch.from_numpy(batch.actions), torch.from_numpy(batch.state))
        shape = (len(target), NOISE_SAMPLES)
        noise = torch.randn((*shape, *target.shape[1:]), generator=self._generator)
        t = sample_flow_time(shape, self._generator, target.device)
        error = policy.network.flow_error_from(prefix, inputs.state, target, noise=noise, time=t)
        is_pad = torch.from_numpy(batch.is_pad)
        acting = flow_matching_loss(error * ~is_pad[:, None, :, None], is_pad)
        return acting + POINTING_WEIGHT * self._pointing(tokens, batch)

    def _inputs(self, batch: PlayBatch) -> ModelInputs:
        return self.policy.prepare(batch.images, batch.state, batch.prompts)

    def _pointing(self, tokens: Tensor, batch: PlayBatch) -> Tensor:
        """Which patch holds the centre (cross-entropy), and where in it (distance in patches), where it is visible.

        Every image token is asked itself: that binds words to colours within a few hundred updates, where a position
        read from the prompt's last token did not tell the two objects of a scene apart after as many.
        """
        side, num_cameras = self.patches_per_side, len(self.policy.spec.cameras)
        points = torch.from_numpy(batch.points)
        position, visible = (points[..., :2].clamp(-0.999, 0.999) + 1) * side / 2, points[..., 2]
        cell = position.long()
        patch = cell[..., 1] * side + cell[..., 0]
        answers = self.pointer(tokens[:, : num_cameras * side**2]).view(-1, num_cameras, side**2, 2, 3).transpose(2, 3)
        which = F.cross_entropy(answers[..., 0].flatten(0, 2), patch.flatten(), reduction="none").view(patch.shape)
        at_patch = patch[..., None, None].expand(*patch.shape, 1, 2)
        where = answers[..., 1:].gather(3, at_patch).squeeze(3) - (position - cell - 0.5)
        return ((which + where.abs().sum(-1)) * visible).sum() / visible.sum()


def learn(
    lessons: Lessons,
    loss_of: Callable[[PlayBatch], Tensor],
    draw: Callable[[], PlayBatch],
    *,
    num_updates: int,
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
        loss = loss_of(draw())
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
