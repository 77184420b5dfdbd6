"""Puts a trainer together from its configuration: fresh, or where a checkpoint left it."""

import logging
from functools import partial
from pathlib import Path

import msgspec
import torch

from learner.algorithms.build import build_algorithm, recipe_of
from learner.algorithms.interfaces import Algorithm
from learner.algorithms.settings import check_settings
from learner.replay.held_out import HeldOut
from learner.replay.mixture import Mixture
from learner.replay.reader import ReplayDataset
from learner.trainer.best import score_of
from learner.trainer.checkpoints import Checkpoints, policy_of, read_state
from learner.trainer.feed import DataFeed
from learner.trainer.guard import Diverged
from learner.trainer.hardware import build_hardware
from learner.trainer.loop import Trainer
from learner.trainer.outputs import Outputs
from learner.trainer.progress import Progress
from learner.trainer.ranks import Ranks
from learner.trainer.same_data import check_same_data
from learner.trainer.sources import build_mixture
from serl_launcher import publication
from serl_launcher.config import RunConfig
from serl_launcher.datasets.layout import dataset_path
from serl_launcher.errors import CheckpointError
from serl_launcher.metrics import MetricSink
from serl_launcher.publication import Publisher
from serl_launcher.run_directory import RunDirectory
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)


def build_trainer(config: RunConfig) -> Trainer:
    """Returns a trainer at its first update, or where its newest checkpoint left it.

    Raises:
        ConfigError: Settings that contradict each other or the data.
        CheckpointError: The checkpoint does not fit.
    """
    check_settings(config)
    torch.set_num_threads(config.training.num_threads)
    run = RunDirectory.of(config)
    ranks, accelerator = build_hardware(config)
    label = config.dataset.label
    demonstrations = [ReplayDataset(dataset_path(name), label=label) for name in config.dataset.repo_id]
    replay = ReplayDataset(run.replay, label=label)
    score = score_of(config.training.keep_best, run.root)
    checkpoints = Checkpoints(run.checkpoints, keep=config.training.keep_checkpoints, score=score)
    newest = checkpoints.newest()
    _check_same(ranks, newest)
    recipe = recipe_of(config)
    part = (ranks.number, ranks.count)
    policy = recipe.start(config, [*demonstrations, replay]) if newest is None else recipe.load(policy_of(newest))
    algorithm = build_algorithm(config, policy, accelerator, seed=config.seed, part=part)
    check_same_data(ranks, run, demonstrations, learns_online=algorithm.learns_online)
    checkpoints.about = _about(config, policy.spec)
    mixture = build_mixture(
        config, algorithm, policy.spec.camera_names, demonstrations=demonstrations, replay=replay, part=part
    )
    progress = Progress()
    if newest is not None:
        state = read_state(newest)
        algorithm.load_state(state.tensors, state.algorithm)
        mixture.load_state_dict(state.mixture)
        progress.seconds_trained = state.seconds_trained
        progress.load_counters(state.counters)
        logger.info("Continuing from checkpoint %s.", newest)
    held_out = _held_out(config, mixture) if ranks.is_first else None
    feed = DataFeed(mixture, replay, algorithm, ranks=ranks, held_out=held_out)
    outputs = _outputs(config, run, checkpoints) if ranks.is_first else None
    return Trainer(
        config, algorithm, feed=feed, ranks=ranks, outputs=outputs, progress=progress,
        go_back=partial(_go_back, checkpoints, algorithm),
    )  # fmt: skip


def _check_same(ranks: Ranks, newest: Path | None) -> None:
    """Raises CheckpointError where the ranks would begin at different updates: their disks may differ."""
    lowest, highest = ranks.lowest_and_highest(-1 if newest is None else int(newest.name))
    if lowest != highest:
        raise CheckpointError(
            f"Expected the same checkpoint on every machine, found updates {lowest} to {highest} (-1: none). Put "
            "output_dir on a disk that all of them see, or copy the directory `checkpoints` from the first one."
        )


def _about(config: RunConfig, spec: RobotSpec) -> bytes:
    """Returns what a checkpoint tells of its run, as JSON."""
    return msgspec.json.format(msgspec.json.encode({"spec_digest": spec.digest(), "config": config}))


def _held_out(config: RunConfig, mixture: Mixture) -> HeldOut:
    rules = [(source.sampler, source.rule) for source in mixture.sources]
    return HeldOut(rules, fraction=config.dataset.held_out_fraction, num_samples=config.training.held_out_samples)


def _go_back(checkpoints: Checkpoints, algorithm: Algorithm) -> None:
    """Puts weights, optimizers and noise back to the newest checkpoint, but not the samples: they may be the cause."""
    newest = checkpoints.newest()
    if newest is None:
        raise Diverged(
            "Training was to go back to its last checkpoint, but there is none yet. Lower algo.optimizer.lr, or check "
            "the data with `python -m tools.replay verify`."
        )
    algorithm.load_policy(policy_of(newest))
    state = read_state(newest)
    algorithm.load_state(state.tensors, state.algorithm)
    logger.warning("Went back to checkpoint %s.", newest.name)


def _outputs(config: RunConfig, run: RunDirectory, checkpoints: Checkpoints) -> Outputs:
    checkpoints.clean()
    checkpoints.mark_best()  # An evaluation may have ended after the last checkpoint.
    newest = publication.latest(run.policies)
    sink = MetricSink(run.metrics / "trainer.jsonl", config.logging, run_name=config.unique_identifier)
    return Outputs(
        Publisher(run.policies), checkpoints, sink, newest_version=-1 if newest is None else newest.version,
        server_status=run.status("server"),
    )  # fmt: skip
