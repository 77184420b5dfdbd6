"""Checks, repairs and rewrites a replay dataset: `python -m tools.replay COMMAND DIRECTORY ...`.

Commands that change a dataset only say what they would do, unless `--yes` is given; they refuse while a learner uses
it. None deletes a recording: what is replaced is kept beside the dataset under another name.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from learner.replay.pins import PinFile
from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.copying import copy_episodes
from serl_launcher.datasets.layout import dataset_path, read_info
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError, HiorsError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tools.replay.repair import findings, repair
from tools.replay.rewriting import no_learner, rewrite
from tools.replay.verify import problems, report

VIEWS = ("all", "successful", "interventions", "to-video")
MEGABYTE = 1024**2


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns 0 where all is well."""
    chosen = _parser().parse_args(arguments)
    try:
        return chosen.run(chosen, dataset_path(chosen.directory))
    except HiorsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1


def verify_command(_chosen: argparse.Namespace, root: Path) -> int:
    """Checks every file and decodes every image."""
    num_problems = 0
    for problem in problems(root):
        num_problems += 1
        _say(problem)
    _say(f"{root}: {f'{num_problems} problems' if num_problems else 'whole'}.")
    return int(num_problems > 0)


def stats_command(_chosen: argparse.Namespace, root: Path) -> int:
    """Says what is in a dataset."""
    _say(report(root))
    return 0


def repair_command(chosen: argparse.Namespace, root: Path) -> int:
    """Puts right what a crash left."""
    found = list(findings(root))
    for finding in found or [f"{root} needs no repair."]:
        _say(finding)
    if found and _is_wanted(chosen):
        repair(root)
        left = list(findings(root))
        _say(f"{root}: {'repaired' if not left else 'still ' + '; '.join(left)}.")
        return int(bool(left))
    return 0


def compact_command(chosen: argparse.Namespace, root: Path) -> int:
    """Joins the episodes' files into large ones, which stock readers open faster."""
    num_episodes = ReplayDataset(root).num_episodes
    num_files = len(list((root / "data").rglob("*.parquet")))
    _say(f"{root}: {num_episodes} episodes in {num_files} files, to be joined up to {chosen.megabytes} MB each.")
    if _is_wanted(chosen):
        kept = rewrite(root, range(num_episodes), file_bytes=chosen.megabytes * MEGABYTE, what="compact")
        _say(f"{root} now has {len(list((root / 'data').rglob('*.parquet')))} files; the old dataset is {kept}.")
    return 0


def prune_command(chosen: argparse.Namespace, root: Path) -> int:
    """Leaves episodes out by outcome, or all but the newest steps."""
    dataset = ReplayDataset(root)
    is_kept = ~np.isin(dataset.episodes.outcome, chosen.outcome)
    if chosen.newest is not None:
        is_kept &= dataset.num_steps - dataset.episodes.first_step - dataset.episodes.length < chosen.newest
    kept_episodes = np.flatnonzero(is_kept).tolist()
    num_steps = int(dataset.episodes.length[is_kept].sum())
    _say(
        f"{root}: {len(kept_episodes)} of {dataset.num_episodes} episodes stay, {num_steps} of {dataset.num_steps} "
        f"steps. Without: {np.flatnonzero(~is_kept).tolist()[:50]}."
    )
    if len(kept_episodes) < dataset.num_episodes and _is_wanted(chosen):
        kept = rewrite(root, kept_episodes, file_bytes=0, what="prune")
        _say(f"{root} now has {len(kept_episodes)} episodes; the old dataset, with all of them, is {kept}.")
    return 0


def pin_command(chosen: argparse.Namespace, root: Path) -> int:
    """Keeps episodes in the sampling window, also while a learner runs; says which ones are kept."""
    dataset = ReplayDataset(root)
    wanted = {dataset.episode_id(_episode(dataset, name)) for name in chosen.episode}
    pins = PinFile(root)
    pins.refresh()
    if wanted:
        pins.write(pins.names - wanted if chosen.remove else pins.names | wanted)
    _say(f"{root}: pinned are {np.flatnonzero(ReplayDataset(root).is_pinned(())).tolist()}.")
    return 0


def relabel_command(chosen: argparse.Namespace, root: Path) -> int:
    """Corrects the label of one episode."""
    dataset = ReplayDataset(root)
    episode = _episode(dataset, chosen.episode)
    episode_id = dataset.episode_id(episode)
    assert dataset.spec is not None, "checked with the episode"
    _say(f"{root}: episode {episode} ({episode_id}) is {dataset.episodes.outcome[episode]}, to be {chosen.outcome}.")
    if _is_wanted(chosen):
        label = EpisodeLabelled(episode_id, Outcome(chosen.outcome), chosen.by, chosen.time)
        with no_learner(root), closing(DatasetWriter(root, dataset.spec)) as writer:
            writer.relabel(episode_id, label)
        _say(f"Episode {episode} is {chosen.outcome} now, by {chosen.by}.")
    return 0


def export_command(chosen: argparse.Namespace, root: Path) -> int:
    """Writes a view of the dataset as a dataset of its own."""
    target = Path(chosen.target).expanduser().absolute()
    dataset = ReplayDataset(root)
    episodes = dataset.episodes
    is_wanted = {
        "all": np.ones(len(episodes), bool),
        "to-video": np.ones(len(episodes), bool),
        "successful": episodes.outcome == Outcome.SUCCESS,
        "interventions": episodes.num_intervention_steps > 0,
    }[chosen.view]
    if target.exists():
        raise DatasetError(f"Expected no file or directory at {target}, there is one. Choose another target.")
    indices = np.flatnonzero(is_wanted).tolist()
    unfinished = target.with_name(f".{target.name}.unfinished")
    if unfinished.exists():
        raise DatasetError(f"An export to {target} was cut off. Remove {unfinished}, then export again.")
    if chosen.view == "to-video":
        from tools.replay.video import VideoStore

        store = VideoStore(read_info(root)["features"], dataset.control_hz)
        num_steps = copy_episodes(
            root, unfinished, indices, file_bytes=chosen.megabytes * MEGABYTE, store=store, described=store.described()
        )
    else:
        num_steps = copy_episodes(root, unfinished, indices, file_bytes=chosen.megabytes * MEGABYTE)
    unfinished.rename(target)
    _say(f"{target}: {len(indices)} of {dataset.num_episodes} episodes, {num_steps} steps.")
    return 0


def _episode(dataset: ReplayDataset, name: str) -> int:
    """Returns the number of an episode of a dataset of ours, given by number or id."""
    ids = [dataset.episode_id(episode) for episode in range(dataset.num_episodes)]
    if dataset.spec is None:
        raise DatasetError(f"Expected a dataset that hiors wrote in {dataset.root}; the episodes of others have no id.")
    if name in ids:
        return ids.index(name)
    if not name.isdecimal() or int(name) >= len(ids):
        raise DatasetError(f"Expected an episode of {dataset.root} (0 to {len(ids) - 1}, or an id), got {name!r}.")
    return int(name)


def _is_wanted(chosen: argparse.Namespace) -> bool:
    if not chosen.yes:
        _say("Nothing was changed. Give --yes to do it.")
    return chosen.yes


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable, *, is_changing: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__)
        added.set_defaults(run=run)
        added.add_argument("directory", help="a dataset, or its name below HF_LEROBOT_HOME")
        if is_changing:
            added.add_argument("--yes", action="store_true", help="do it; otherwise only say what would be done")
        return added

    size = {"type": int, "default": 100, "help": "largest data file, in MB (LeRobot's own limit is 100)"}
    command("verify", verify_command)
    command("stats", stats_command)
    command("repair", repair_command, is_changing=True)
    command("compact", compact_command, is_changing=True).add_argument("--megabytes", **size)
    prune = command("prune", prune_command, is_changing=True)
    outcomes = [str(outcome) for outcome in Outcome]
    prune.add_argument("--outcome", nargs="+", choices=outcomes, default=[], help="leave out episodes labelled so")
    prune.add_argument("--newest", type=int, help="leave out episodes that end before the newest N steps begin")
    pin = command("pin", pin_command)
    pin.add_argument("episode", nargs="*", help="its index or its id; none: only say which ones are pinned")
    pin.add_argument("--remove", action="store_true", help="no longer keep them")
    relabel = command("relabel", relabel_command, is_changing=True)
    relabel.add_argument("episode", help="its index or its id")
    relabel.add_argument("outcome", choices=outcomes)
    relabel.add_argument("--by", default="human", help="who judges")
    relabel.set_defaults(time=time.time())
    export = command("export", export_command)
    export.add_argument("target", help="directory of the new dataset; must not exist")
    export.add_argument("--view", choices=VIEWS, default="all", help="which episodes, or all with pictures as video")
    export.add_argument("--megabytes", **size)
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    sys.exit(main(sys.argv[1:]))
