"""Compares what actors recorded with what stock parquet readers find in the sealed dataset."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from serl_launcher.journal import EpisodeRecord, Journal
from tests.chaos.history import ActorHistory, Episode, digest, find_problems, note_of, observation_parts

IMAGES = "observation.images."

Key = tuple[str, int]
"""Episode id and number of a step."""


@dataclass
class Verdict:
    """What the comparison found; all but `num_steps` and `num_episodes` must be empty."""

    num_steps: int = 0
    num_episodes: int = 0
    lost: list[Key] = field(default_factory=list)
    duplicated: list[Key] = field(default_factory=list)
    invented: list[Key] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Steps, final observations and labels that differ from what was recorded."""
    reordered: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.duplicated or self.invented or self.damaged or self.reordered or self.problems)


def read_dataset(root: Path) -> list[tuple[str, Episode]]:
    """Returns (actor id, episode) by episode index, as info.json counts them."""
    info = json.loads((root / "meta" / "info.json").read_text())
    tasks = pq.read_table(root / "meta" / "tasks.parquet").to_pydict()
    prompts = dict(zip(tasks["task_index"], tasks["__index_level_0__"], strict=True))
    rows = [row for path in root.glob("meta/episodes/*/*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    rows = sorted(rows, key=lambda row: row["episode_index"])[: info["total_episodes"]]
    if [row["episode_index"] for row in rows] != list(range(info["total_episodes"])):
        raise ValueError(f"{root}: info.json counts {info['total_episodes']} episodes, the metadata has others.")
    found = [(row["actor_id"], _read_episode(root, info, row, prompts)) for row in rows]
    if sum(len(episode.steps) for _, episode in found) != info["total_frames"]:
        raise ValueError(f"{root}: info.json counts {info['total_frames']} steps, the files have others.")
    return found


def read_journal(path: Path) -> list[tuple[str, Episode]]:
    """Returns (actor id, episode) of what is closed and not marked as sealed yet, in closing order."""
    with contextlib.closing(Journal(path)) as journal:
        records = [journal.read_episode(episode_id) for episode_id in journal.closed_episodes()]
    return [(record.actor_id, _episode_of_record(record)) for record in records]


def join(sealed: Sequence[tuple[str, Episode]], closed: Sequence[tuple[str, Episode]]) -> list[tuple[str, Episode]]:
    """Returns what the dataset has, then what only the journal has.

    An episode in both was written when the learner ended, and not yet marked; its next start recognises it. The copies
    must be equal, or both are returned. The journal knows its newest label.
    """
    found = list(sealed)
    places = {episode.episode_id: place for place, (_, episode) in enumerate(sealed)}
    for actor_id, episode in closed:
        place = places.get(episode.episode_id)
        if place is not None and dataclasses.replace(found[place][1], label=episode.label) == episode:
            found[place] = (actor_id, episode)
        else:
            found.append((actor_id, episode))
    return found


def compare(histories: Sequence[ActorHistory], found: Sequence[tuple[str, Episode]]) -> Verdict:
    """Returns every difference between both sides."""
    verdict = Verdict(problems=find_problems(histories))
    for history in histories:
        _compare_actor(history.episodes(), [episode for actor, episode in found if actor == history.actor_id], verdict)
    known = {history.actor_id for history in histories}
    verdict.problems += [f"an actor that does not exist: {actor}" for actor, _ in found if actor not in known]
    return verdict


def _compare_actor(recorded: Sequence[Episode], found: Sequence[Episode], verdict: Verdict) -> None:
    wanted, got = _steps_of(recorded), _steps_of(found)
    counts = Counter(key for key, _ in got)
    wanted_digests, got_digests = dict(wanted), dict(got)
    verdict.num_steps += len(wanted)
    verdict.num_episodes += len(recorded)
    verdict.lost += [key for key in wanted_digests if key not in counts]
    verdict.duplicated += [key for key, count in counts.items() if count > 1]
    verdict.invented += [key for key in counts if key not in wanted_digests]
    common = wanted_digests.keys() & got_digests.keys()
    verdict.damaged += [f"step {key}" for key in common if wanted_digests[key] != got_digests[key]]
    order = [key for key, _ in wanted if key in common]
    for want, have in zip(order, (key for key, _ in got if key in common), strict=False):
        if want != have:
            verdict.reordered.append(f"{have} where {want} was recorded")
    by_id = {episode.episode_id: episode for episode in found}
    for episode in recorded:
        other = by_id.get(episode.episode_id)
        if other is not None and (episode.final, episode.label) != (other.final, other.label):
            verdict.damaged.append(f"end of {episode.episode_id}: {episode.label}, found {other.label}")


def _steps_of(episodes: Sequence[Episode]) -> list[tuple[Key, str]]:
    return [((each.episode_id, number), content) for each in episodes for number, content in enumerate(each.steps)]


def _read_episode(root: Path, info: Mapping[str, Any], row: Mapping[str, Any], prompts: Mapping[int, str]) -> Episode:
    index = row["episode_index"]
    place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
    table = pq.ParquetFile(root / info["data_path"].format(**place)).read().to_pylist()
    rows = [each for each in table if each["episode_index"] == index]
    final_file = "final_observations/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet".format(**place)
    finals = pq.ParquetFile(root / final_file).read().to_pylist()
    [final] = [each for each in finals if each["episode_id"] == row["episode_id"]]
    if [each["frame_index"] for each in rows] != list(range(len(rows))) or row["length"] != len(rows):
        raise ValueError(f"Episode {index}: the steps are not numbered from 0 to {row['length'] - 1}.")
    steps = [
        digest(
            *_observation_parts(each), prompts[each["task_index"]], np.array(each["action"], "<f4").tobytes(),
            float(each["next.reward"]), each["next.done"] and not each["next.truncated"], each["next.truncated"],
            each["source"], each["policy_version"], each["wall_time_s"], each["monotonic_s"],
        )
        for each in rows
    ]  # fmt: skip
    return Episode(
        episode_id=row["episode_id"],
        steps=steps,
        final=digest(*_observation_parts(final)),
        label=(row["outcome"], row["labelled_by"]),
        is_ended=True,
    )


def _episode_of_record(record: EpisodeRecord) -> Episode:
    return Episode(
        episode_id=record.episode_id,
        steps=[note_of(step)["digest"] for step in record.steps],
        final=digest(*observation_parts(record.final_observation)),
        label=(str(record.outcome), record.labelled_by),
        is_ended=True,
    )


def _observation_parts(row: Mapping[str, Any]) -> list[bytes]:
    images = [row[name]["bytes"] for name in sorted(row) if name.startswith(IMAGES)]
    return [*images, np.array(row["observation.state"], "<f4").tobytes()]
