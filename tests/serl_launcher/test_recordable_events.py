"""What an actor may store is what every learner takes: both ask the same questions."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from learner.server.sealing import Sealer
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import ProtocolError
from serl_launcher.events import (
    EpisodeEnded,
    EpisodeLabelled,
    EpisodeStarted,
    Event,
    check_fits,
    check_recordable,
    encode_event,
    view_event,
)
from serl_launcher.journal import Journal
from serl_launcher.types import Outcome
from tests.learner.server.test_sealing import Actor
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=8, cameras=1)
RECORD = make_episode(SPEC, 0, 2)
STEP = RECORD.steps[0]
STARTED = EpisodeStarted("a-1-0", "reach", 1.0, 7)
ENDED = EpisodeEnded("a-1-0", 2, RECORD.final_observation, Outcome.SUCCESS, "human", 2.0)
LABELLED = EpisodeLabelled("a-1-0", Outcome.FAILURE, "human", 3.0)
NOT_A_NUMBER = np.full(3, np.nan, "<f4").tobytes()


def seen(**changes: object) -> dict[str, object]:
    return {"observation": msgspec.structs.replace(STEP.observation, **changes)}


REFUSED = [
    (STEP, {"reward": math.nan}, "finite reward"),
    (STEP, {"reward": -math.inf}, "finite reward"),
    (STEP, {"reward": 1e300}, "finite reward"),
    (STEP, {"policy_version": 2**63}, "policy_version"),
    (STEP, {"wall_time_s": math.nan}, "wall_time_s"),
    (STEP, {"monotonic_s": math.inf}, "monotonic_s"),
    (STEP, {"action": NOT_A_NUMBER}, "finite action"),
    (STEP, {"proposal": NOT_A_NUMBER}, "finite proposal"),
    (STEP, seen(state=NOT_A_NUMBER), "finite state"),
    (STEP, seen(prompt="x" * 4001), r"observation\[2\]"),
    (STEP, seen(images={"cam_0": STEP.observation.images["cam_0"][:20]}), "cam_0"),
    (STEP, seen(images=make_episode(robot(size=16, cameras=1), 0, 1).steps[0].observation.images), "cam_0"),
    (STEP, seen(images=make_episode(robot(size=16, cameras=1, encoding="png"), 0, 1).steps[0].observation.images),
     "cam_0"),
    (STEP, {"source": 9}, "source"),
    (STARTED, {"seed": 2**63}, "seed"),
    (STARTED, {"wall_time_s": math.nan}, "wall_time_s"),
    (STARTED, {"prompt": "x" * 4001}, "prompt"),
    (STARTED, {"episode_id": "x" * 201}, "episode"),
    (STARTED, {"episode_id": "\N{SNOWMAN}" * 190}, "episode id"),
    (STARTED, {"episode_id": ""}, "episode id"),
    (ENDED, {"final_observation": msgspec.structs.replace(ENDED.final_observation, state=NOT_A_NUMBER)}, "finite"),
    (ENDED, {"wall_time_s": math.inf}, "wall_time_s"),
    (LABELLED, {"wall_time_s": math.nan}, "wall_time_s"),
    (LABELLED, {"labelled_by": "x" * 201}, "labelled_by"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "changes", "reason"), REFUSED)
def test_the_actor_refuses_what_the_learner_refuses(event: Event, changes: dict[str, object], reason: str) -> None:
    changed = msgspec.structs.replace(event, **changes)
    with pytest.raises(ProtocolError):
        check_fits(view_event(encode_event(changed)), SPEC)
    with pytest.raises(ProtocolError, match=reason):
        check_recordable(changed, SPEC)


@pytest.mark.parametrize("seed", [None, 0, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("reward", [0.0, -3e38, 3e38])
def test_what_both_accept_is_sealed(tmp_path: Path, seed: int | None, reward: float) -> None:
    record = make_episode(SPEC, 0, 2)
    record.seed = seed
    record.steps[1] = msgspec.structs.replace(record.steps[1], reward=reward, policy_version=2**63 - 1)
    for event in (STARTED, *record.steps, ENDED, LABELLED):
        check_recordable(event, SPEC)
    journal = Journal(tmp_path / "journal", durability="os")
    Actor(journal).record(record)
    assert Sealer(journal, DatasetWriter(tmp_path / "replay", SPEC)).run_once() == 1
    journal.close()
