"""LeRobot 0.4.4's training loop, with its dataset, loader and update, around the same policy and data."""

import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.scripts.lerobot_train import update_policy
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker
from torch import Tensor, nn

from learner.algorithms.sft import FlowMatching
from learner.replay.reader import ReplayDataset
from learner.trainer.engines import build_optimizers
from learner.trainer.start import starting_policy
from serl_launcher.config import RunConfig
from serl_launcher.policies import Pi0Policy


class LeRobotShaped(nn.Module):
    """Our policy with the interface that LeRobot's loop calls."""

    def __init__(self, policy: Pi0Policy, noise_samples: int) -> None:
        super().__init__()
        self._loss = FlowMatching(policy)
        self._noise_samples = noise_samples

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of a LeRobot batch: images float [B, 3, h, w] in [0, 1] per camera."""
        policy = self._loss.policy
        pictures = torch.stack([batch[f"observation.images.{name}"] for name in policy.spec.camera_names], dim=1)
        images = (pictures * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
        inputs = policy.prepare(images, batch["observation.state"].cpu().numpy(), [str(task) for task in batch["task"]])
        draws = policy.draw_flow(len(images), self._noise_samples, None)
        return self._loss(inputs, batch["action"], batch["action_is_pad"], draws), {}


class LeRobotLoop:
    """Draws with LeRobot's loader and updates with LeRobot's function."""

    def __init__(self, config: RunConfig, root: Path, *, num_workers: int) -> None:
        """Opens the dataset and draws a policy; `num_workers` are the loader's processes (LeRobot's default is 4)."""
        policy = starting_policy(config, [ReplayDataset(root)])
        horizon, hz = policy.config.horizon, policy.spec.control_hz
        dataset = LeRobotDataset("bench", root=root, delta_timestamps={"action": [n / hz for n in range(horizon)]})
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=config.algo.batch_size, shuffle=True, num_workers=num_workers, drop_last=False,
            prefetch_factor=2 if num_workers else None,
        )  # fmt: skip
        self._accelerator = Accelerator(cpu=config.training.num_gpus == 0)
        module = LeRobotShaped(policy, config.algo.noise_samples)
        self._optimizer = build_optimizers(module, config.algo.optimizer)[0]
        self._module, self._optimizer, self._loader = self._accelerator.prepare(module, self._optimizer, loader)
        meters = {name: AverageMeter(name, ":.3f") for name in ("loss", "grad_norm", "lr", "update_s")}
        self._tracker = MetricsTracker(config.algo.batch_size, len(dataset), _NUM_EPISODES, meters)
        self._max_norm = config.algo.optimizer.max_grad_norm
        self._batches = iter(self._loader)

    def run(self, num_updates: int) -> np.ndarray:
        """Returns the seconds of each update, waiting for its batch included, float64."""
        seconds = []
        for _ in range(num_updates):
            started = time.perf_counter()
            batch = self._next()
            update_policy(self._tracker, self._module, batch, self._optimizer, self._max_norm, self._accelerator)
            seconds.append(time.perf_counter() - started)
        return np.array(seconds)

    def _next(self) -> dict[str, Tensor]:
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            return next(self._batches)


_NUM_EPISODES = 20
