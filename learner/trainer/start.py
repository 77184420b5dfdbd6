"""The policy a run begins with."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed

from learner.replay.reader import ReplayDataset
from learner.replay.statistics import norm_stats
from serl_launcher.config import RunConfig
from serl_launcher.errors import CheckpointError, ConfigError
from serl_launcher.policies import NormStats, Pi0Policy, build_policy, load_policy
from serl_launcher.policies.adoption import adopted
from serl_launcher.policies.gaussian import GaussianConfig, GaussianPolicy, load_gaussian
from serl_launcher.policies.normalization import with_least_std
from serl_launcher.policies.places import policy_directory
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)

MIN_STATE_STD = 0.01
"""Least deviation by which critics and a Gaussian policy divide the state: what hardly moves is not blown up."""


def starting_policy(config: RunConfig, datasets: Sequence[ReplayDataset]) -> Pi0Policy:
    """Returns the policy of a fresh run, on the CPU, with its normalisation statistics.

    Its weights come from `checkpoint_path` or are drawn; its statistics from the checkpoint or, where that has none,
    from `datasets`. Both are fixed from then on.

    Raises:
        ConfigError: Nothing says what robot it is for, or there is nothing to take statistics from.
    """
    filled = [dataset for dataset in datasets if dataset.num_steps]
    spec = next((dataset.spec for dataset in filled if dataset.spec is not None), None)
    set_seed(config.seed)
    policy = _weights(config, spec)
    if not policy.norm_stats:
        if not filled:
            raise ConfigError(
                "The starting policy has no normalisation statistics, and there are no steps to compute them from. Set "
                "dataset.repo_id to demonstrations, or checkpoint_path to a fine-tuned policy."
            )
        stats = norm_stats(filled, policy.config.horizon, policy.delta_mask)
        policy.set_norm_stats({key: with_least_std(NormStats(**values)) for key, values in stats.items()})
        logger.info("Normalisation statistics from %d steps.", sum(dataset.num_steps for dataset in filled))
    return policy


def starting_gaussian(config: RunConfig, datasets: Sequence[ReplayDataset]) -> GaussianPolicy:
    """Returns the Gaussian policy of a fresh run: that of `checkpoint_path`, or drawn for the robot of `datasets`.

    Raises:
        ConfigError: Nothing says what robot it is for.
    """
    set_seed(config.seed)
    if config.checkpoint_path is not None:
        with _named(config.checkpoint_path) as directory:
            return load_gaussian(directory)
    spec = next((dataset.spec for dataset in datasets if dataset.spec is not None), None)
    if spec is None:
        raise ConfigError(
            "Nothing says what robot the policy is for: set checkpoint_path, or dataset.repo_id to demonstrations."
        )
    states = [dataset.steps.state for dataset in datasets if dataset.num_steps]
    return draw_gaussian(config, spec, states=np.concatenate(states) if states else None)


def draw_gaussian(config: RunConfig, spec: RobotSpec, *, states: np.ndarray | None = None) -> GaussianPolicy:
    """Returns a freshly drawn policy.

    Args:
        config: Of the run.
        spec: Of the robot.
        states: Float32 [N, S], of demonstrations, by which the state is normalised for good; None: it is not.

    Raises:
        ConfigError: The robot has no such gripper.
    """
    sac = config.algo.sac
    policy = GaussianPolicy(
        GaussianConfig(
            hidden_dims=tuple(sac.hidden_dims),
            image_features=sac.image_features,
            gripper=_place(sac.gripper.action, spec.action_names, "action"),
            gripper_state=_place(sac.gripper.state, spec.state_names, "state"),
        ),
        spec,
    )
    if states is not None:
        std = np.maximum(states.std(axis=0), MIN_STATE_STD)
        policy.encoder.state_norm.set_statistics(torch.from_numpy(states.mean(axis=0)), torch.from_numpy(std))
    return policy


def _place(name: str, names: tuple[str, ...], kind: str) -> int | None:
    if not name:
        return None
    if name not in names:
        raise ConfigError(f"algo.sac.gripper.{kind}: the robot has no {name!r}; it has {list(names)}.")
    return names.index(name)


@contextlib.contextmanager
def _named(checkpoint_path: str) -> Iterator[Path]:
    """Yields the directory of the policy; what is wrong with it is the setting's fault: no restart would mend it."""
    try:
        yield policy_directory(checkpoint_path)
    except CheckpointError as exc:
        raise ConfigError(f"checkpoint_path={checkpoint_path!r} cannot be used: {exc}") from exc


def _check_same_tokenizer(policy: Pi0Policy, asked: Path) -> None:
    if not asked.is_file() or asked.read_bytes() != policy.tokenizer.model:
        raise ConfigError(
            f"checkpoint_path has a tokenizer of its own, which is not policy.tokenizer_path={asked}: the weights know "
            "its ids only. Leave policy.tokenizer_path out."
        )


def _weights(config: RunConfig, spec: RobotSpec | None) -> Pi0Policy:
    if config.checkpoint_path is not None:
        tokenizer = None if config.policy.tokenizer_path is None else Path(config.policy.tokenizer_path)
        settings = partial(adopted, wanted=config.policy, explicit=config.explicit)
        with _named(config.checkpoint_path) as directory:
            policy = load_policy(directory, spec=spec, tokenizer_path=tokenizer, settings=settings)
        if tokenizer is not None and "policy.tokenizer_path" in config.explicit:
            _check_same_tokenizer(policy, tokenizer)
        policy.adopt_(config.policy)
        logger.info("Starting from the policy %s.", directory)
        return policy
    if spec is None:
        raise ConfigError(
            "Nothing says what robot the policy is for: set checkpoint_path, or dataset.repo_id to demonstrations."
        )
    logger.info("Starting from drawn weights.")
    return build_policy(config.policy, spec)
