"""Where the samples of a batch come from: demonstrations and views of the replay, in exact shares."""

from collections.abc import Sequence
from functools import partial

from learner.algorithms.interfaces import Algorithm, Sampling
from learner.replay.chunks import ChunkSampler
from learner.replay.held_out import drawn_only
from learner.replay.mixture import Mixture, MixtureSource
from learner.replay.reader import ReplayDataset
from learner.replay.views import ONLINE_VIEWS, StepWeights, View, among
from learner.replay.views import demonstrations as demonstrations_rule
from serl_launcher.config import RunConfig
from serl_launcher.errors import ConfigError

_DEMONSTRATIONS = "demonstrations"


def build_mixture(
    config: RunConfig, algorithm: Algorithm, cameras: Sequence[str], *, demonstrations: Sequence[ReplayDataset],
    replay: ReplayDataset, part: tuple[int, int],
) -> Mixture:  # fmt: skip
    """Returns what draws batches: from every demonstration dataset by its size, and from views of the replay.

    Args:
        config: Of the run.
        algorithm: Says which online steps it learns from, and how samples are assembled.
        cameras: In the order of the policy.
        demonstrations: May be none.
        replay: May still be empty.
        part: (number, count): the ranks share a batch, and each assembles every count-th sample of it.

    Raises:
        ConfigError: There is nothing to learn from, or not what `dataset.mixture` names.
    """
    wanted = algorithm.sampling
    if wanted.with_next and config.dataset.label != "commanded":
        raise ConfigError(
            f"algo={config.algo.name} has critics, which judge what was commanded: set dataset.label=commanded, got "
            f"{config.dataset.label!r}."
        )

    source = partial(_source, wanted, cameras, config.dataset.held_out_fraction)
    shares = _shares(config, algorithm, demonstrations)
    offline = shares.pop(_DEMONSTRATIONS, 0.0)
    num_offline_steps = sum(dataset.num_steps for dataset in demonstrations)
    rule = demonstrations_rule(config.dataset, horizon=wanted.horizon)
    sources: list[MixtureSource] = []
    for number, dataset in enumerate(demonstrations):
        if offline and dataset.num_steps:
            share = offline * dataset.num_steps / num_offline_steps
            sources.append(source(f"{_DEMONSTRATIONS}/{number}", dataset=dataset, rule=rule, fraction=share))
    _check_demonstrations(sources, config.dataset.noop_threshold)
    for view, share in shares.items():
        sources.append(source(f"online/{view}", dataset=replay, rule=_online_rule(algorithm, view), fraction=share))
    if not sources:
        raise ConfigError(
            f"algo={config.algo.name} has nothing to learn from: set dataset.repo_id to demonstrations with steps."
        )
    return Mixture(sources, config.algo.batch_size, config.seed, part=part)


def _source(
    wanted: Sampling, cameras: Sequence[str], held_out_fraction: float, name: str, *, dataset: ReplayDataset,
    rule: StepWeights, fraction: float,
) -> MixtureSource:  # fmt: skip
    sampler = ChunkSampler(
        dataset, horizon=wanted.horizon, cameras=cameras, discount=wanted.discount, with_next=wanted.with_next,
        return_horizon=wanted.return_horizon, rewards_from_labels=wanted.rewards_from_labels,
    )  # fmt: skip
    view = View(dataset, drawn_only(rule, held_out_fraction))
    return MixtureSource(name=name, view=view, sampler=sampler, fraction=fraction, rule=rule)


def _shares(config: RunConfig, algorithm: Algorithm, demonstrations: Sequence[ReplayDataset]) -> dict[str, float]:
    """Returns the share of each view in a batch."""
    shares = dict(config.dataset.mixture)
    if not shares:
        offline = algorithm.offline_fraction if demonstrations else 0.0
        has_online = offline < 1 and algorithm.learns_online
        return {_DEMONSTRATIONS: offline} | ({"all": 1 - offline} if has_online else {})
    if _DEMONSTRATIONS in shares and not any(dataset.num_steps for dataset in demonstrations):
        raise ConfigError("dataset.mixture names demonstrations: set dataset.repo_id to some with steps.")
    online = [name for name in shares if name != _DEMONSTRATIONS]
    if online and not algorithm.learns_online:
        raise ConfigError(
            f"algo={config.algo.name} learns from demonstrations alone, but dataset.mixture names {', '.join(online)}."
        )
    return shares


def _online_rule(algorithm: Algorithm, view: str) -> StepWeights:
    return algorithm.online_weights if view == "all" else among(ONLINE_VIEWS[view], algorithm.online_weights)


def _check_demonstrations(sources: Sequence[MixtureSource], noop_threshold: float) -> None:
    for demonstrated in sources:
        if not demonstrated.view.num_steps:
            raise ConfigError(
                f"No step of the demonstrations in {demonstrated.view.dataset.root} can be learned from: their "
                f"episodes failed, or move no joint by more than dataset.noop_threshold={noop_threshold}."
            )
