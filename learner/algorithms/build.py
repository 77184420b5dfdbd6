"""The one place where an algorithm's name becomes an object."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from learner.algorithms.critics import CriticLoss, Critics
from learner.algorithms.encoders import critics_encoder
from learner.algorithms.flow_actor import FlowActor, frozen_copy
from learner.algorithms.flow_actor_critic import FlowActorCritic
from learner.algorithms.interfaces import Algorithm
from learner.algorithms.reject_sampling import RejectSampling
from learner.algorithms.sac import Actor, Sac, target_entropy
from learner.algorithms.sft import FlowMatching, Sft
from learner.algorithms.temperature import Temperature
from learner.replay.reader import ReplayDataset
from learner.trainer.optimization import Optimization
from learner.trainer.start import starting_gaussian, starting_policy
from serl_launcher.config import RunConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies import Pi0Policy, load_policy
from serl_launcher.policies.gaussian import GaussianPolicy, load_gaussian
from serl_launcher.policies.trained_part import TrainedPart

Part = tuple[int, int]
"""Number of this rank, and how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What belongs to an algorithm's name. The kind of policy is the same in all three."""

    start: Callable[[RunConfig, Sequence[ReplayDataset]], Any]
    """Returns the policy of a fresh run."""
    load: Callable[[Path], Any]
    """Returns the policy of a checkpoint."""
    build: Callable[[RunConfig, Any, Accelerator, int, Part], Algorithm]


def recipe_of(config: RunConfig) -> Recipe:
    """Returns the recipe of `algo.name`; raises ConfigError where no algorithm has that name."""
    if config.algo.name not in ALGORITHMS:
        raise ConfigError(f"algo.name must be one of {sorted(ALGORITHMS)}, got {config.algo.name!r}.")
    return ALGORITHMS[config.algo.name]


def build_algorithm(
    config: RunConfig, policy: Pi0Policy | GaussianPolicy, accelerator: Accelerator, *, seed: int, part: Part = (0, 1)
) -> Algorithm:
    """Returns the algorithm of `algo.name` around `policy`, which moves to the accelerator's device.

    Args:
        config: Of the run.
        policy: Of the kind that the algorithm's recipe starts or loads.
        accelerator: Of this rank.
        seed: The same on every rank.
        part: Number of this rank, and how many there are.

    Raises:
        ConfigError: No algorithm has that name.
    """
    return recipe_of(config).build(config, policy, accelerator, seed, part)


def _sft(config: RunConfig, policy: Pi0Policy, accelerator: Accelerator, seed: int, part: Part) -> Sft:
    optimization = Optimization(FlowMatching(policy), config.algo.optimizer, accelerator)
    return Sft(
        policy, config.algo, optimization, num_micro_batches=config.training.gradient_accumulation_steps, seed=seed,
        save=TrainedPart().save, part=part,
    )  # fmt: skip


def _reject_sampling(
    config: RunConfig, policy: Pi0Policy, accelerator: Accelerator, seed: int, part: Part
) -> RejectSampling:
    return RejectSampling(_sft(config, policy, accelerator, seed, part), config.algo, config.dataset)


def _sac(config: RunConfig, policy: GaussianPolicy, accelerator: Accelerator, seed: int, part: Part) -> Sac:
    algo, sac = config.algo, config.algo.sac
    _refuse_averages(config)
    policy.to(accelerator.device)
    critics = Critics(
        policy.encoder, len(policy.continuous), members=sac.critic_ensemble_size, hidden=sac.hidden_dims,
        layer_norm=sac.critic_layer_norm, gripper=policy.gripper,
    ).to(accelerator.device)  # fmt: skip
    temperature = Temperature(sac.temperature_init, target_entropy(sac, len(policy.continuous)))
    optimizations = (
        Optimization(Actor(policy.actor, critics, sac.actor_value), algo.optimizer, accelerator),
        Optimization(CriticLoss(critics, sac.cql_weight), algo.critic_optimizer, accelerator),
        Optimization(temperature, algo.temperature_optimizer, accelerator),
    )
    return Sac(
        policy, critics, algo, config.dataset, optimizations,
        num_micro_batches=config.training.gradient_accumulation_steps, seed=seed, part=part,
    )  # fmt: skip


def _flow_actor_critic(
    config: RunConfig, policy: Pi0Policy, accelerator: Accelerator, seed: int, part: Part
) -> FlowActorCritic:
    algo, sac, executed = config.algo, config.algo.sac, config.actor.execution_horizon
    _refuse_averages(config)
    if algo.rl_steps + algo.sft_steps < 1 or min(algo.rl_steps, algo.sft_steps) < 0:
        raise ConfigError(f"algo.rl_steps + sft_steps must be 1 or more, got {algo.rl_steps} + {algo.sft_steps}.")
    if executed > policy.config.horizon:
        raise ConfigError(
            f"actor.execution_horizon ({executed}) must not exceed the policy's horizon ({policy.config.horizon})."
        )
    policy.to(accelerator.device)
    critics = Critics(
        critics_encoder(policy, sac), executed * policy.spec.action_dim,
        members=sac.critic_ensemble_size, hidden=sac.hidden_dims, layer_norm=sac.critic_layer_norm,
    ).to(accelerator.device)  # fmt: skip
    reference = frozen_copy(policy) if sac.distill_weight > 0 or sac.sampler != "euler" else None
    actor = FlowActor(policy, critics, reference, algo, executed)
    temperature = Temperature(sac.temperature_init, -sac.target_divergence)
    optimizations = (
        Optimization(actor, algo.optimizer, accelerator),
        Optimization(CriticLoss(critics, sac.cql_weight), algo.critic_optimizer, accelerator),
        Optimization(temperature, algo.temperature_optimizer, accelerator),
    )
    return FlowActorCritic(
        actor, critics, algo, config.dataset, optimizations,
        num_micro_batches=config.training.gradient_accumulation_steps, seed=seed, part=part,
    )  # fmt: skip


def _refuse_averages(config: RunConfig) -> None:
    if config.algo.critic_optimizer.ema > 0 or config.algo.temperature_optimizer.ema > 0:
        raise ConfigError("Only the policy is averaged: leave the ema of critic_optimizer and temperature_optimizer 0.")


ALGORITHMS: dict[str, Recipe] = {
    "sft_pi0": Recipe(start=starting_policy, load=load_policy, build=_sft),
    "reject_sampling_pi0": Recipe(start=starting_policy, load=load_policy, build=_reject_sampling),
    "sac_pi0": Recipe(start=starting_policy, load=load_policy, build=_flow_actor_critic),
    "sac": Recipe(start=starting_gaussian, load=load_gaussian, build=_sac),
}
