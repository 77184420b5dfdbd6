"""The one place where an algorithm's name becomes an object."""

from collections.abc import Callable

from accelerate import Accelerator

from learner.algorithms.interfaces import Algorithm
from learner.algorithms.reject_sampling import RejectSampling
from learner.algorithms.sft import FlowMatching, Sft
from learner.trainer.optimization import Optimization
from serl_launcher.config import RunConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies import Pi0Policy, save_policy


def build_algorithm(config: RunConfig, policy: Pi0Policy, accelerator: Accelerator, *, seed: int) -> Algorithm:
    """Returns the algorithm of `algo.name` around `policy`, which moves to the accelerator's device.

    Raises:
        ConfigError: No algorithm has that name.
    """
    if config.algo.name not in ALGORITHMS:
        raise ConfigError(f"algo.name must be one of {sorted(ALGORITHMS)}, got {config.algo.name!r}.")
    return ALGORITHMS[config.algo.name](config, policy, accelerator, seed)


def _sft(config: RunConfig, policy: Pi0Policy, accelerator: Accelerator, seed: int) -> Sft:
    module = FlowMatching(policy, config.algo.noise_samples)
    optimization = Optimization(module, config.algo.optimizer, accelerator)
    return Sft(
        policy, config.algo, optimization, num_micro_batches=config.training.gradient_accumulation_steps, seed=seed,
        save=save_policy,
    )  # fmt: skip


def _reject_sampling(config: RunConfig, policy: Pi0Policy, accelerator: Accelerator, seed: int) -> RejectSampling:
    return RejectSampling(_sft(config, policy, accelerator, seed), config.algo, config.dataset)


ALGORITHMS: dict[str, Callable[[RunConfig, Pi0Policy, Accelerator, int], Algorithm]] = {
    "sft_pi0": _sft,
    "reject_sampling_pi0": _reject_sampling,
}
