"""Puts a trainer together from its configuration: fresh, or where a checkpoint left it."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import torch

from learner.algorithms.build import build_algorithm, recipe_of
from learner.algorithms.interfaces import Algorithm
from learner.replay.chunks import ChunkSampler
from learner.replay.held_out import HeldOut, drawn_only
from learner.replay.mixture import Mixture, MixtureSource
from learner.replay.reader import ReplayDataset
from learner.replay.views import StepWeights, View
from learner.replay.views import demonstrations as demonstrations_rule
from learner.trainer.best import score_of
from learner.trainer.checkpoints import Checkpoints, policy_of, read_state
from learner.trainer.feed import DataFeed
from learner.trainer.hardware import build_hardware
from learner.trainer.loop import Trainer
from learner.trainer.outputs import Outputs
from learner.trainer.progress import Progress
from learner.trainer.ranks import Ranks
from serl_launcher import publication
from serl_launcher.config import RunConfig
from serl_launcher.datasets.layout import dataset_path
from serl_launcher.errors import CheckpointError, ConfigError
from serl_launcher.metrics import MetricSink
from serl_launcher.policies import Pi0Policy
from serl_launcher.policies.gaussian import GaussianPolicy
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
    policy = recipe.start(config, [*demonstrations, replay]) if newest is None else recipe.load(policy_of(newest))
    algorithm = build_algorithm(config, policy, accelerator, seed=config.seed, part=(ranks.number, ranks.count))
    checkpoints.about = _about(config, policy.spec)
    mixture = _mixture(config, algorithm, policy, demonstrations=demonstrations, replay=replay, ranks=ranks)
    progress = Progress()
    if newest is not None:
        state = read_state(newest)
        algorithm.load_state(state.tensors, state.algorithm)
        mixture.load_state_dict(state.mixture)
        progress.seconds_trained = state.seconds_trained
        progress.load_counters(state.counters)
        logger.info("Continuing from checkpoint %s.", newest)
    feed = DataFeed(mixture, replay, algorithm, held_out=_held_out(config, mixture) if ranks.is_first else None)
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


def _mixture(
    config: RunConfig, algorithm: Algorithm, policy: Pi0Policy | GaussianPolicy, *,
    demonstrations: Sequence[ReplayDataset],
    replay: ReplayDataset, ranks: Ranks,
) -> Mixture:  # fmt: skip
    """Returns the sources of a batch: every demonstration dataset by its size, and the online steps."""
    offline = algorithm.offline_fraction if demonstrations else 0.0
    num_offline_steps = sum(dataset.num_steps for dataset in demonstrations)

    wanted = algorithm.sampling
    if wanted.with_next and config.dataset.label != "commanded":
        raise ConfigError(
            f"algo={config.algo.name} has critics, which judge what was commanded: set dataset.label=commanded, got "
            f"{config.dataset.label!r}."
        )

    def source(name: str, dataset: ReplayDataset, rule: StepWeights, fraction: float) -> MixtureSource:
        sampler = ChunkSampler(
            dataset, horizon=wanted.horizon, cameras=policy.spec.camera_names, discount=wanted.discount,
            with_next=wanted.with_next, return_horizon=wanted.return_horizon,
            rewards_from_labels=wanted.rewards_from_labels,
        )  # fmt: skip
        view = View(dataset, drawn_only(rule, config.dataset.held_out_fraction))
        return MixtureSource(name=name, view=view, sampler=sampler, fraction=fraction, rule=rule)

    rule = demonstrations_rule(config.dataset, horizon=wanted.horizon)
    sources = [
        source(f"demonstrations/{number}", dataset, rule, offline * dataset.num_steps / num_offline_steps)
        for number, dataset in enumerate(demonstrations)
        if offline and dataset.num_steps
    ]
    for demonstrated in sources:
        if not demonstrated.view.num_steps:
            raise ConfigError(
                f"No step of the demonstrations in {demonstrated.view.dataset.root} can be learned from: their "
                "episodes failed, or move no joint by more than "
                f"dataset.noop_threshold={config.dataset.noop_threshold}."
            )
    if offline < 1 and algorithm.learns_online:
        sources.append(source("online", replay, algorithm.online_weights, 1 - offline))
    if not sources:
        raise ConfigError(
            f"algo={config.algo.name} has nothing to learn from: set dataset.repo_id to demonstrations with steps."
        )
    # Every rank draws the whole batch and assembles its share.
    return Mixture(sources, config.algo.batch_size, config.seed, part=(ranks.number, ranks.count))


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
        raise CheckpointError(
            "Training was to go back to its last checkpoint, but there is none yet. Lower algo.optimizer.lr, or check "
            "the data with `python -m tools.replay verify`."
        )
    algorithm.load_policy(policy_of(newest))
    state = read_state(newest)
    algorithm.load_state(state.tensors, state.algorithm)
    logger.warning("Went back to checkpoint %s.", newest.name)


def _outputs(config: RunConfig, run: RunDirectory, checkpoints: Checkpoints) -> Outputs:
    checkpoints.clean()
    newest = publication.latest(run.policies)
    sink = MetricSink(run.metrics / "trainer.jsonl", config.logging, run_name=config.unique_identifier)
    return Outputs(
        Publisher(run.policies), checkpoints, sink, newest_version=-1 if newest is None else newest.version,
        server_status=run.status("server"),
    )  # fmt: skip
