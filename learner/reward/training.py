"""Trains and calibrates a reward classifier."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learner.replay.reader import ReplayDataset
from learner.reward.pictures import CALIBRATE, LEARN, REPORT, Pictures, pictures_of
from learner.trainer.schedule import learning_rate
from serl_launcher.config import RunConfig
from serl_launcher.errors import DatasetError
from serl_launcher.networks.observation import random_shift
from serl_launcher.policies.reward_classifier import ClassifierSpec, RewardClassifier, calibrated_threshold
from serl_launcher.specs import CameraSpec

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How a classifier does on episodes that it did not learn from.

    Half of them choose among its weights and give the threshold, the others say how good that threshold is.
    """

    loss: float
    """Mean of the loss on the first half's pictures with and without success, both kinds weighing the same."""
    threshold: float
    false_positive_rate: float
    """Of the second half, as all that follows."""
    recall: float
    num_negatives: int
    num_positives: int
    is_independent: bool
    """Whether there were episodes for a second half; False: rates are those on which the threshold was calibrated."""


class ClassifierTraining:
    """One classifier and the pictures that it learns from, drawn half with and half without success."""

    def __init__(self, config: RunConfig, pictures: Sequence[Pictures]) -> None:
        """Draws a classifier for the cameras of the first dataset.

        Raises:
            DatasetError: Pictures with or without success are missing, to learn from or to calibrate on.
        """
        self._config, self._pictures = config, pictures
        self._settings = config.algo.classifier
        self._rng = np.random.default_rng(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._places = {
            (shows, purpose): self._find(shows=shows, purpose=purpose)
            for shows in (True, False)
            for purpose in (LEARN, CALIBRATE, REPORT)
        }
        for (shows, purpose), places in self._places.items():
            if not places and purpose != REPORT:
                raise DatasetError(_missing(shows=shows, purpose=purpose))
        self._is_independent = all(self._places[shows, REPORT] for shows in (True, False))
        torch.manual_seed(config.seed)
        self._device = "cuda" if config.training.num_gpus > 0 else "cpu"
        self.classifier = RewardClassifier(_spec(config, pictures[0])).to(self._device)
        optimizer = config.algo.optimizer
        self._optimizer = torch.optim.AdamW(
            self.classifier.parameters(), lr=optimizer.lr, betas=(optimizer.betas[0], optimizer.betas[1]),
            eps=optimizer.eps, weight_decay=optimizer.weight_decay,
        )  # fmt: skip

    def update(self, num_updates: int) -> float:
        """Makes one update; returns its loss."""
        half = self._config.algo.batch_size // 2
        drawn = [self._draw(half, shows=shows) for shows in (True, False)]
        images, states = (torch.from_numpy(np.concatenate([part[place] for part in drawn])) for place in (0, 1))
        labels = torch.cat([torch.ones(half), torch.zeros(half)])
        shift = torch.rand((2, 2 * half), generator=self._generator)
        images = random_shift(images, shift, self._settings.image_shift)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(num_updates, self._config.algo.optimizer)
        self._optimizer.zero_grad(set_to_none=True)
        logits = self.classifier(images.to(self._device), states.to(self._device))
        loss = F.binary_cross_entropy_with_logits(logits, labels.to(self._device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), self._config.algo.optimizer.max_grad_norm)
        self._optimizer.step()
        return loss.item()

    def measure(self) -> Quality:
        """Returns how good it is on held-out episodes, at the threshold that keeps the false positives rare."""
        negatives, positives = (self._probabilities(shows=shows, purpose=CALIBRATE) for shows in (False, True))
        threshold = calibrated_threshold(negatives, self._settings.max_false_positive_rate)
        loss = -0.5 * (np.log(np.clip(positives, 1e-7, 1)).mean() + np.log(np.clip(1 - negatives, 1e-7, 1)).mean())
        if self._is_independent:
            negatives, positives = (self._probabilities(shows=shows, purpose=REPORT) for shows in (False, True))
        return Quality(
            loss=float(loss), threshold=threshold, false_positive_rate=float((negatives >= threshold).mean()),
            recall=float((positives >= threshold).mean()), num_negatives=len(negatives), num_positives=len(positives),
            is_independent=self._is_independent,
        )  # fmt: skip

    def train(self) -> Quality:
        """Makes `algo.max_updates` updates; leaves the classifier that was best where it is calibrated."""
        best, weights = self.measure(), self._weights()
        for number in range(self._config.algo.max_updates):
            loss = self.update(number)
            if (number + 1) % self._settings.evaluation_period == 0 or number + 1 == self._config.algo.max_updates:
                quality = self.measure()
                logger.info("Update %d: loss %.4f, held out %.4f, recall %.3f at a false-positive rate of %.4f.",
                            number + 1, loss, quality.loss, quality.recall, quality.false_positive_rate)  # fmt: skip
                if quality.loss < best.loss:
                    best, weights = quality, self._weights()
        self.classifier.load_state_dict(weights)
        self.classifier.spec = msgspec.structs.replace(
            self.classifier.spec, threshold=best.threshold, false_positive_rate=best.false_positive_rate,
            recall=best.recall, num_negatives=best.num_negatives, num_positives=best.num_positives,
        )  # fmt: skip
        _warn_of(best)
        return best

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.classifier.state_dict().items()}

    def _find(self, *, shows: bool, purpose: int) -> list[tuple[int, int]]:
        """Returns number of the dataset and place of every such picture."""
        return [
            (number, int(place))
            for number, each in enumerate(self._pictures)
            for place in np.flatnonzero((each.shows_success == shows) & (each.purpose == purpose))
        ]

    def _draw(self, count: int, *, shows: bool) -> tuple[np.ndarray, np.ndarray]:
        places = self._places[shows, LEARN]
        return self._read([places[number] for number in self._rng.integers(0, len(places), count)])

    def _probabilities(self, *, shows: bool, purpose: int) -> np.ndarray:
        places = self._places[shows, purpose]
        parts = [places[start : start + _READ_AT_ONCE] for start in range(0, len(places), _READ_AT_ONCE)]
        return np.concatenate([self.classifier.probabilities(*self._read(part)) for part in parts])

    def _read(self, places: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        read = [
            self._pictures[number].read(np.array([place]), self.classifier.camera_names) for number, place in places
        ]
        return np.concatenate([images for images, _ in read]), np.concatenate([states for _, states in read])


def build_training(config: RunConfig, datasets: Sequence[ReplayDataset]) -> ClassifierTraining:
    """Returns a training on every labelled episode of the datasets."""
    pictures = [pictures_of(dataset, config.algo.classifier) for dataset in datasets if dataset.num_steps]
    if not pictures:
        raise DatasetError("There are no recorded episodes: set dataset.repo_id, or name a run with a replay.")
    return ClassifierTraining(config, pictures)


def _spec(config: RunConfig, pictures: Pictures) -> ClassifierSpec:
    settings, shapes = config.algo.classifier, pictures.dataset.image_shapes
    names = settings.image_keys or list(shapes)
    unknown = [name for name in names if name not in shapes]
    if unknown or not names:
        raise DatasetError(
            f"algo.classifier.image_keys names {unknown or 'no camera'}; {pictures.dataset.root} has {list(shapes)}."
        )
    return ClassifierSpec(
        cameras=tuple(CameraSpec(name=name, height=shapes[name][0], width=shapes[name][1]) for name in names),
        state_dim=pictures.dataset.steps.state.shape[1] if settings.uses_state else 0,
        features=settings.features, hidden_dims=tuple(settings.hidden_dims),
    )  # fmt: skip


def _warn_of(quality: Quality) -> None:
    if quality.threshold >= 1 or quality.recall == 0:
        logger.warning(
            "No picture passes the threshold (%.6f): some that show no success look as certain as those that do. Check "
            "the labels, raise algo.classifier.num_ignored_steps, or record more failures.", quality.threshold,
        )  # fmt: skip
    if not quality.is_independent:
        logger.warning(
            "Too few labelled episodes to measure on others than the threshold was calibrated on: its rates are better "
            "than they will be. Eight successes and eight failures, or a larger algo.classifier.validation_fraction, "
            "are enough."
        )


def _missing(*, shows: bool, purpose: int) -> str:
    kind = "pictures that show success" if shows else "pictures that show none"
    side = "to calibrate on" if purpose == CALIBRATE else "to learn from"
    return (
        f"A reward classifier needs labelled episodes on both sides of the split; there are no {kind} {side}. Record "
        "more: four successes at least, and two to three failures for each of them."
    )
