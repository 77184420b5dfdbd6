import json
import math
from pathlib import Path

import numpy as np
import pytest

from actor.plan import ChunkNote, SteppedPlan
from actor.spool import Spool
from actor.timings import HELD, TimingLog
from serl_launcher.errors import SafetyError
from serl_launcher.types import ActionChunk, Observation
from tests.actor.test_rollout import Broken, play, rollout
from tests.actor.tiny_robot import Person, PromptFollower


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_tick_and_every_chunk_is_in_the_line_of_its_episode(tmp_path: Path):
    log = TimingLog(path=tmp_path / "metrics" / "timings.jsonl")
    log.begin()
    log.note_tick(10.0, 10.001, 10.011, 0)
    log.note_tick(10.05, 10.052, 10.06, HELD)
    log.end(7, [ChunkNote(tick=4, delay_ticks=2, jump=float("nan"), timings_ms={"round_trip": 61.234})])
    [row] = rows_of(log.path)
    assert row == {
        "episode": 7, "tick_ms": [50.0], "decide_ms": [1.0, 2.0], "step_ms": [10.0, 8.0], "chunk_index": [0, HELD],
        "chunks": [{"tick": 4, "delay_ticks": 2, "jump": None, "round_trip": 61.23}],
    }  # fmt: skip


def test_a_large_file_makes_room_for_a_new_one(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("actor.timings.MAX_BYTES", 100)
    log = TimingLog(path=tmp_path / "timings.jsonl")
    for number in range(3):
        log.begin()
        log.end(number)
    assert [row["episode"] for row in rows_of(log.path)] == [2]
    assert [row["episode"] for row in rows_of(log.path.with_suffix(".old"))] == [0, 1]


def test_chunks_that_are_waited_for_are_noted_as_well():
    def chunk(first: float) -> ActionChunk:
        actions = first + np.arange(4, dtype=np.float32)[:, None]
        return ActionChunk(actions=actions, policy_version=1, timings_ms={"model": 5.0})

    class Twice:
        def __init__(self) -> None:
            self.chunks = [chunk(0.0), chunk(2.5)]

        def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk:
            return self.chunks.pop(0)

        def forget(self) -> None: ...

    observation = Observation(images={}, state=np.zeros(1, np.float32), prompt="go")
    plan = SteppedPlan(policy=Twice(), execution_horizon=2)
    plan.begin(observation)
    executed = []
    for _ in range(4):
        plan.look()
        executed.append(float(plan.take(observation).action[0]))
    assert executed == [0.0, 1.0, 2.5, 3.5]
    assert [(note.tick, note.delay_ticks, note.timings_ms) for note in plan.notes] == [
        (0, 0, {"model": 5.0}), (2, 0, {"model": 5.0})
    ]  # fmt: skip
    assert math.isnan(plan.notes[0].jump)
    assert plan.notes[1].jump == 0.5


def test_the_control_loop_notes_its_ticks(spool: Spool, tmp_path: Path):
    playing = rollout(spool, tmp_path, policy=PromptFollower(), person=Person(frozenset({1})))
    playing.timings = TimingLog(path=tmp_path / "timings.jsonl")
    [episode] = play(playing, num_episodes=1)
    [row] = rows_of(tmp_path / "timings.jsonl")
    assert len(row["decide_ms"]) == episode.num_steps
    # The person drops the first chunk at the second tick; after that a new one begins.
    assert row["chunk_index"] == [0, -1, 0]


def test_an_episode_that_a_fault_ends_has_its_line(spool: Spool, tmp_path: Path):
    playing = rollout(spool, tmp_path, policy=Broken(num_good=1))
    playing.timings = TimingLog(path=tmp_path / "timings.jsonl")
    with pytest.raises(SafetyError):
        play(playing, num_episodes=1)
    [row] = rows_of(tmp_path / "timings.jsonl")
    assert len(row["decide_ms"]) == 3
