"""`python -m learner.train_reward key=value ...`: a reward classifier from the labelled episodes of a run.

It learns from the run's replay and from the datasets in `dataset.repo_id`, calibrates its threshold on episodes that it
did not learn from, and writes `reward_classifier/` into the directory of the run: the value for
`actor.rewards.classifier_path`.
"""

import logging
import sys

import torch

from learner.algorithms.settings import check_settings, warn_of_classifier_settings
from learner.lifetime import log_to_file
from learner.replay.reader import ReplayDataset
from learner.reward.training import build_training
from serl_launcher.config import load, run_main
from serl_launcher.datasets.layout import dataset_path
from serl_launcher.policies.reward_classifier import save_reward_classifier
from serl_launcher.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def main() -> int:
    """Trains, calibrates, writes."""
    config = load(sys.argv[1:])
    check_settings(config)
    warn_of_classifier_settings(config.algo.optimizer)
    run = RunDirectory.of(config)
    log_to_file(run.logs / "train_reward.log")
    torch.set_num_threads(config.training.num_threads)
    datasets = [ReplayDataset(dataset_path(name)) for name in config.dataset.repo_id]
    training = build_training(config, [*datasets, ReplayDataset(run.replay)])
    quality = training.train()
    directory = run.root / "reward_classifier"
    save_reward_classifier(training.classifier, directory)
    logger.info(
        "Wrote %s: threshold %.4f, recall %.3f of %d pictures with success, false-positive rate %.4f of %d without.",
        directory, quality.threshold, quality.recall, quality.num_positives, quality.false_positive_rate,
        quality.num_negatives,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    run_main(main)
