"""Puts a trainer together from its configuration: fresh, or where a checkpoint left it."""

import logging
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from learner.algorithms.build import build_algorithm
from learner.algorithms.interfaces import Algorithm
from learner.replay.chunks import ChunkSampler
from learner.replay.mixture import Mixture, MixtureSource
from learner.replay.reader import ReplayDataset
from learner.replay.views import StepWeights, View
from learner.replay.views import demonstrations as demonstrations_rule
from learner.trainer.checkpoints import Checkpoints, TrainerState, policy_of, read_state
from learner.trainer.feed import DataFeed
from learner.trainer.loop import Trainer
from learner.trainer.outputs import Outputs
from learner.trainer.progress import Progress
from learner.trainer.ranks import Ranks
from learner.trainer.start import starting_policy
from serl_launcher import publication
from serl_launcher.config import RunConfig
from serl_launcher.datasets.layout import dataset_path
from serl_launcher.errors import ConfigError
from serl_launcher.metrics import MetricSink
from serl_launcher.policies import Pi0Policy, load_policy
from serl_launcher.publication import Publisher
from serl_launcher.run_directory import RunDirectory

logger = logging.getLogger(__name__)

_SEED_STRIDE = 1009
"""Between ranks, so that each draws other samples and other noise."""


def build_trainer(config: RunConfig) -> Trainer:
    """Returns a trainer at its first update, or where its newest checkpoint left it.

    Raises:
        ConfigError: Settings that contradict each other or the data.
        CheckpointError: The checkpoint does not fit.
    """
    torch.set_num_threads(config.training.num_threads)
    run = RunDirectory.of(config)
    ranks, accelerator = _hardware(config)
    demonstrations = [ReplayDataset(dataset_path(name)) for name in config.dataset.repo_id]
    replay = ReplayDataset(run.replay)
    checkpoints = Checkpoints(run.checkpoints, keep=config.training.keep_checkpoints)
    newest = checkpoints.newest()
    policy = starting_policy(config, [*demonstrations, replay]) if newest is None else load_policy(policy_of(newest))
    algorithm = build_algorithm(config, policy, accelerator, seed=config.seed + _SEED_STRIDE * ranks.number)
    mixture = _mixture(config, algorithm, policy, demonstrations=demonstrations, replay=replay, ranks=ranks)
    progress = Progress()
    if newest is not None:
        _continue(read_state(newest), algorithm, mixture, progress)
        logger.info("Continuing from checkpoint %s.", newest)
    feed = DataFeed(mixture, replay, algorithm)
    outputs = _outputs(config, run, checkpoints) if ranks.is_first else None
    return Trainer(config, algorithm, feed=feed, ranks=ranks, outputs=outputs, progress=progress)


def _hardware(config: RunConfig) -> tuple[Ranks, Accelerator]:
    training = config.training
    if training.deepspeed_config is not None:
        raise ConfigError(
            "training.deepspeed_config is not supported by this trainer yet; leave it out to train with "
            "data-parallel ranks (training.num_gpus)."
        )
    if training.num_gpus > 0 and not torch.cuda.is_available():
        raise ConfigError(f"training.num_gpus is {training.num_gpus}, but torch finds no GPU. Use training.num_gpus=0.")
    # The last layer of the language stream has weights whose output is not used: they get no gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        cpu=training.num_gpus == 0, mixed_precision=training.mixed_precision, kwargs_handlers=[unused]
    )
    ranks = Ranks(accelerator)
    parts = ranks.count * training.gradient_accumulation_steps
    if config.algo.batch_size % parts:
        raise ConfigError(
            f"algo.batch_size ({config.algo.batch_size}) must be a multiple of ranks x gradient_accumulation_steps "
            f"({ranks.count} x {training.gradient_accumulation_steps})."
        )
    return ranks, accelerator


def _mixture(
    config: RunConfig, algorithm: Algorithm, policy: Pi0Policy, *, demonstrations: Sequence[ReplayDataset],
    replay: ReplayDataset, ranks: Ranks,
) -> Mixture:  # fmt: skip
    """Returns the sources of a batch: every demonstration dataset by its size, and the online steps."""
    offline = algorithm.offline_fraction if demonstrations else 0.0
    num_offline_steps = sum(dataset.num_steps for dataset in demonstrations)

    horizon = policy.config.horizon

    def source(name: str, dataset: ReplayDataset, rule: StepWeights, fraction: float) -> MixtureSource:
        sampler = ChunkSampler(dataset, horizon=horizon, cameras=policy.spec.camera_names)
        return MixtureSource(name=name, view=View(dataset, rule), sampler=sampler, fraction=fraction)

    rule = demonstrations_rule(config.dataset, horizon=horizon)
    sources = [
        source(f"demonstrations/{number}", dataset, rule, offline * dataset.num_steps / num_offline_steps)
        for number, dataset in enumerate(demonstrations)
        if offline and dataset.num_steps
    ]
    if offline < 1 and algorithm.learns_online:
        sources.append(source("online", replay, algorithm.online_weights, 1 - offline))
    if not sources:
        raise ConfigError(
            f"algo={config.algo.name} has nothing to learn from: set dataset.repo_id to demonstrations with steps."
        )
    seed = config.seed + _SEED_STRIDE * ranks.number
    return Mixture(sources, config.algo.batch_size // ranks.count, seed)


def _continue(state: TrainerState, algorithm: Algorithm, mixture: Mixture, progress: Progress) -> None:
    algorithm.load_state(state.tensors, state.algorithm)
    mixture.load_state_dict(state.mixture)
    progress.seconds_trained = state.seconds_trained


def _outputs(config: RunConfig, run: RunDirectory, checkpoints: Checkpoints) -> Outputs:
    checkpoints.clean()
    newest = publication.latest(run.policies)
    sink = MetricSink(run.metrics / "trainer.jsonl", config.logging, run_name=config.unique_identifier)
    return Outputs(Publisher(run.policies), checkpoints, sink, newest_version=-1 if newest is None else newest.version)
