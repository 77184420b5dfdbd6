"""Sees in pictures whether the task is done.

On disk: classifier.json (cameras, sizes, calibrated threshold)  model.safetensors

Legend: B batch, C cameras, S state width.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from serl_launcher.errors import CheckpointError
from serl_launcher.networks.mlp import Mlp
from serl_launcher.networks.observation import ObservationEncoder
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Observation

CONFIG_FILE = "classifier.json"
_WEIGHTS_FILE = "model.safetensors"


class ClassifierSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a classifier looks at, and how its probabilities were calibrated."""

    cameras: tuple[CameraSpec, ...]
    state_dim: int
    """0: it is not told the state."""
    features: int
    hidden_dims: tuple[int, ...]
    threshold: float = 0.5
    """Probability from which a picture counts as success."""
    false_positive_rate: float | None = None
    """Share of the pictures without success that passed the threshold, of episodes that were not learned from."""
    recall: float | None = None
    """Share of the pictures with success that passed it."""
    num_negatives: int = 0
    """Pictures without success behind these numbers."""
    num_positives: int = 0


class RewardClassifier(nn.Module):
    """One logit from all cameras; on the device that its weights are on."""

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        robot = RobotSpec(
            name="classifier", cameras=spec.cameras, state_names=tuple(map(str, range(spec.state_dim))),
            action_names=(), action_low=(), action_high=(), control_hz=1.0,
        )  # fmt: skip
        self.encoder = ObservationEncoder(robot, spec.features)
        self.head = Mlp(self.encoder.width, spec.hidden_dims, 1, layer_norm=True)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Cameras in the order of `forward`."""
        return tuple(camera.name for camera in self.spec.cameras)

    def forward(self, images: UInt8[Tensor, "B C h w 3"], state: Float[Tensor, "B S"]) -> Float[Tensor, " B"]:
        """Returns the log odds of success; `state` has no columns where the classifier is not told it."""
        return self.head(self.encoder(images, state[:, : self.spec.state_dim])).squeeze(-1)

    @torch.no_grad()
    def probabilities(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns float32 [B] for uint8 [B, C, height, width, 3] and float32 [B, S]."""
        device = next(self.parameters()).device
        logits = self(torch.from_numpy(images).to(device), torch.from_numpy(state).to(device))
        return logits.sigmoid().cpu().numpy()

    def probability(self, observation: Observation) -> float:
        """Returns the probability that an observation shows success."""
        images = np.stack([observation.images[name] for name in self.camera_names])[None]
        return float(self.probabilities(images, observation.state[None])[0])


def save_reward_classifier(classifier: RewardClassifier, directory: Path) -> None:
    """Writes a classifier into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    save_file(weights, directory / _WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(classifier.spec)))


def load_reward_classifier(directory: Path, *, device: str | torch.device = "cpu") -> RewardClassifier:
    """Returns the classifier in a directory; raises CheckpointError where there is none or its weights do not fit."""
    try:
        spec = msgspec.json.decode((directory / CONFIG_FILE).read_bytes(), type=ClassifierSpec)
        classifier = RewardClassifier(spec)
        classifier.load_state_dict(load_file(directory / _WEIGHTS_FILE))
    except (OSError, msgspec.MsgspecError, RuntimeError) as exc:
        raise CheckpointError(f"Expected a reward classifier at {directory}: {exc}") from exc
    return classifier.to(device).eval()


def calibrated_threshold(negatives: Sequence[float] | np.ndarray, max_false_positive_rate: float) -> float:
    """Returns the least threshold that at most that share of the negatives reaches.

    It lies just above the highest probability that must not pass, so that ties do not pass either.

    Args:
        negatives: Probabilities of pictures that show no success, of episodes that were not learned from.
        max_false_positive_rate: Such as 0.01. With fewer than 1 / rate pictures none may pass.
    """
    ordered = np.sort(np.asarray(negatives, np.float64))[::-1]
    num_allowed = int(np.floor(max_false_positive_rate * len(ordered)))
    if num_allowed >= len(ordered):
        return 0.0
    return float(np.nextafter(np.float32(ordered[num_allowed]), np.float32(2.0)))
