"""The checker must see what the campaign is there to find."""

import dataclasses
import json

import pytest

from tests.chaos.checker import compare, join
from tests.chaos.history import ActorHistory, Episode


def history(*, num_episodes: int = 2, num_steps: int = 3) -> ActorHistory:
    said = ActorHistory("robot-0")
    said.read("S 1 0 0")
    seq = 0
    for number in range(num_episodes):
        name = f"e-{number}"
        notes = [{"kind": "start", "episode": name, "seed": number}]
        notes += [
            {"kind": "step", "episode": name, "step": step, "digest": f"{name}/{step}"} for step in range(num_steps)
        ]
        notes += [{"kind": "end", "episode": name, "outcome": "success", "judge": "human", "final": f"{name}/final"}]
        for note in notes:
            seq += 1
            said.read(f"T {seq} {json.dumps(note)}")
            said.read(f"A {seq}")
    said.read(f"E {seq} 0")
    return said


def dataset(said: ActorHistory) -> list[tuple[str, Episode]]:
    return [("robot-0", dataclasses.replace(episode, steps=list(episode.steps))) for episode in said.episodes()]


def test_an_episode_that_is_written_but_not_marked_counts_once() -> None:
    said = history()
    first, second = dataset(said)
    later = ("robot-0", dataclasses.replace(first[1], label=("failure", "human")))
    assert join([first], [later, second]) == [later, second]
    other = ("robot-0", dataclasses.replace(first[1], steps=["e-0/0", "e-0/x", "e-0/2"]))
    assert compare([said], join([first, second], [other])).duplicated


def test_what_was_recorded_is_clean() -> None:
    said = history()
    verdict = compare([said], dataset(said))
    assert verdict.is_clean
    assert (verdict.num_steps, verdict.num_episodes) == (6, 2)


def test_a_missing_last_step_is_lost() -> None:
    said = history()
    found = dataset(said)
    found[1][1].steps.pop()
    assert compare([said], found).lost == [("e-1", 2)]


def test_an_episode_that_is_there_twice_is_duplicated() -> None:
    said = history()
    found = dataset(said)
    assert compare([said], [*found, found[0]]).duplicated == [("e-0", 0), ("e-0", 1), ("e-0", 2)]


def test_a_changed_byte_is_damage_and_so_is_another_label() -> None:
    said = history()
    found = dataset(said)
    found[0][1].steps[1] = "changed"
    found[1][1].label = ("failure", "human")
    assert len(compare([said], found).damaged) == 2


def test_swapped_episodes_are_reordered() -> None:
    said = history()
    assert compare([said], dataset(said)[::-1]).reordered


def test_a_step_that_nobody_recorded_is_invented() -> None:
    said = history()
    found = dataset(said)
    found[1][1].steps.append("from nowhere")
    assert compare([said], found).invented == [("e-1", 3)]


def test_an_event_that_was_tried_and_then_killed_is_known_by_the_next_number() -> None:
    said = history(num_episodes=1)
    said.read('T 6 {"kind": "start", "episode": "e-1", "seed": 1}')
    said.read("S 2 5 5")
    said.read('T 6 {"kind": "start", "episode": "e-2", "seed": 1}')
    said.read("A 6")
    assert said.problems == []
    assert said.events[6]["episode"] == "e-2"


@pytest.mark.parametrize("line", ["S 2 4 0", 'T 5 {"kind": "start", "episode": "e-9", "seed": 1}'])
def test_a_spool_that_forgets_what_it_took_is_a_problem(line: str) -> None:
    said = history(num_episodes=1)
    said.read(line)
    assert said.problems
