"""A process dies at each failpoint; what is on disk then is whole, and what follows loses and doubles nothing."""

import ast
import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actor.spool import Spool
from learner.server.ingest import Ingest, StepBatch
from learner.server.sealing import Sealer, open_writer
from serl_launcher import failpoints
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import ConfigError
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, Event
from serl_launcher.journal import Journal
from serl_launcher.publication import Publisher, latest, verify
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome
from tests.chaos.checker import read_dataset
from tests.chaos.history import ActorHistory, Episode, note_of
from tests.process_death import dies
from tests.recorded_episodes import make_episode, robot
from tests.serl_launcher.datasets.open_with_lerobot import open_with_lerobot

SPEC = robot()
LENGTHS = (4, 3, 5)
ROOT = Path(__file__).parents[2]


def events_of(number: int) -> list[Event]:
    episode = make_episode(SPEC, number, LENGTHS[number], outcome=Outcome.FAILURE)
    return [
        EpisodeStarted(episode.episode_id, episode.prompt, 0.5, episode.seed),
        *episode.steps,
        EpisodeEnded(episode.episode_id, len(episode.steps), episode.final_observation, Outcome.FAILURE, "script", 1.0),
    ]


ALL_EVENTS = [
    *events_of(0),
    *events_of(1),
    EpisodeLabelled("a-1-0", Outcome.SUCCESS, "human", 5.0),
    *events_of(2),
]  # fmt: skip


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where a sync takes no time; a killed process leaves there what it leaves anywhere."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as directory:
        yield Path(directory)


def run_to_the_end(root: Path) -> None:
    """Records what is not recorded yet, delivers it piece by piece, seals it, and corrects a label."""
    spool = Spool(root / "spool", max_bytes=2**26)
    for event in ALL_EVENTS[spool.last_seq :]:
        spool.append(event)
    spool.sync()
    journal = Journal(root / "journal")
    ingest = Ingest(journal)
    hello = Hello("a", spool.epoch, SPEC.digest(), SPEC, spool.spool_id, spool.acknowledged_seq)
    spool.acknowledge(ingest.admit(hello))
    writer = open_writer(root / "replay", SPEC, threading.Event())
    assert writer is not None
    sealer = Sealer(journal, writer)
    sealer.run_once()
    while pending := spool.pending(spool.acknowledged_seq, 4, 2**20):
        batch = StepBatch(
            actor_id="a", epoch=spool.epoch, spool_id=spool.spool_id, first_seq=pending[0][0],
            events=[encoded for _, encoded in pending],
        )  # fmt: skip
        [committed] = ingest.commit([batch])
        assert committed.error is None
        sealer.run_once()
        spool.acknowledge(committed.last_seq)
    writer.close()
    journal.close()
    spool.close()


def recorded() -> list[Episode]:
    history = ActorHistory("a")
    for seq, event in enumerate(ALL_EVENTS, 1):
        history.read(f"T {seq} {json.dumps(note_of(event))}")
        history.read(f"A {seq}")
    history.read(f"E {len(ALL_EVENTS)} 0")
    return history.episodes()


def check_after_death(root: Path) -> None:
    """The dataset has every episode that the journal calls sealed, whole; nothing that was recorded is gone."""
    found = read_dataset(root / "replay") if (root / "replay" / "meta" / "info.json").exists() else []
    for (_, episode), wanted in zip(found, recorded(), strict=False):
        assert (episode.episode_id, episode.steps, episode.final) == (wanted.episode_id, wanted.steps, wanted.final)
        assert episode.label in (wanted.label, ("failure", "script"))
    if (root / "journal").exists():
        with contextlib.closing(Journal(root / "journal")) as journal:
            assert journal.counts().num_sealed_episodes <= len(found)


PLACES = [
    *(f"{place}:{count}" for place in failpoints.SPOOL[:1] for count in (1, 8)), *failpoints.SPOOL[1:],
    failpoints.COMMIT[0], *(f"{place}:{count}" for place in failpoints.COMMIT[1:] for count in (1, 3)),
    # The second time there is a dataset already; robot and tasks are written with the first episode only.
    *(f"{place}:{1 if place in ('seal robot', 'seal tasks') else 2}" for place in failpoints.SEAL), *failpoints.LABEL,
]  # fmt: skip


@pytest.mark.timeout(300)
def test_after_a_death_anywhere_everything_is_whole_and_a_restart_finishes_it(memory_disk: Path) -> None:
    for place in PLACES:
        root = memory_disk / place
        dies(lambda root=root: run_to_the_end(root), place)
        check_after_death(root)
        run_to_the_end(root)
        assert [episode for _, episode in read_dataset(root / "replay")] == recorded(), place


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stock_lerobot_opens_the_dataset_after_a_death_anywhere(tmp_path: Path) -> None:
    pytest.importorskip("lerobot")
    num_sealed = {}
    for place in PLACES:
        root = tmp_path / place.replace(" ", "-").replace(":", "-")
        dies(lambda root=root: run_to_the_end(root), place)
        if (root / "replay" / "meta" / "info.json").exists():
            with contextlib.closing(Journal(root / "journal")) as journal:
                num_sealed[root / "replay"] = journal.counts().num_sealed_episodes
    assert len(num_sealed) >= len(failpoints.SEAL)
    for found, wanted in zip(open_with_lerobot(list(num_sealed)), num_sealed.values(), strict=True):
        assert found["num_episodes"] >= wanted
        assert found["num_steps"] == sum(LENGTHS[: found["num_episodes"]])
        assert found["indices"] == list(range(found["num_steps"]))


def test_a_publication_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for place in failpoints.PUBLISH:
        root = tmp_path / place
        Publisher(root).publish(write_weights, 1)
        dies(lambda root=root: Publisher(root).publish(write_weights, 2), place)
        newest = latest(root)
        assert newest is not None
        assert newest.version == (2 if place == "publication named" else 1)
        assert verify(newest.path) == newest
        if newest.version == 1:
            Publisher(root).publish(write_weights, 2)
        assert not list(root.glob(".tmp*"))


def write_weights(directory: Path) -> None:
    (directory / "weights").write_bytes(b"w" * 1000)


def test_every_place_in_the_code_is_known_and_every_known_place_is_in_the_code(tmp_path: Path) -> None:
    places = set()
    for package in ("actor", "learner", "serl_launcher"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=func, args=[ast.Constant(value=place)]):
                        if ast.unparse(func) == "failpoints.reached":
                            places.add(place)
    with contextlib.closing(DatasetWriter(tmp_path, SPEC, reached=lambda each: places.add(f"seal {each}"))) as writer:
        writer.append(make_episode(SPEC, 0, 2, outcome=Outcome.FAILURE))
        writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.SUCCESS, "human", 5.0))
    assert places == set(failpoints.PLACES)


def test_an_unknown_place_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ConfigError, match="seal final"):
        failpoints.arm("nowhere")
