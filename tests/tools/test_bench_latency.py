import json

import numpy as np
import pytest

from actor.plan import ChunkNote
from serl_launcher.errors import ConfigError
from serl_launcher.types import ActionChunk, Observation
from tools.bench_latency.arms import Arm
from tools.bench_latency.seams import position_jumps, velocity_jumps
from tools.bench_latency.virtual import LatePolicy

JOINTS = np.array([True, False])


def note(tick, delay_ticks, difference):
    return ChunkNote(tick=tick, delay_ticks=delay_ticks, jump=0.0, timings_ms={}, difference=difference)


def test_jumps_are_those_of_joints_where_a_chunk_joins_another():
    # The joint moves by 1 per tick, then by 3 from tick 3 on, where a chunk joins; the gripper does as it likes.
    commands = [np.array([value, (-1.0) ** value]) for value in (0.0, 1.0, 2.0, 5.0, 8.0)]
    notes = [note(0, 0, None), note(1, 2, np.array([-0.5, 9.0]))]
    assert position_jumps(notes, JOINTS) == [0.5]
    assert velocity_jumps(commands, notes, JOINTS, tick_s=0.5) == ([4.0], [0.0, 0.0])
    assert velocity_jumps(commands[:2], notes, JOINTS, tick_s=0.5) == ([], [])


def test_an_answer_comes_at_the_first_tick_after_its_latency():
    late = LatePolicy(policy=None, rng=np.random.default_rng(0), range_ms=(120.0, 120.0), tick_s=0.05)
    seen = Observation(images={}, state=np.zeros(1, np.float32), prompt="")
    late.ask(seen, tick=0, unfinished=None)
    late.answer(ActionChunk(actions=np.zeros((4, 1), np.float32), policy_version=0))
    assert late.num_under_way == 1
    arrived = [len(late.answers()) for _ in range(5)]
    assert arrived == [0, 0, 0, 1, 0]


def test_an_arm_names_the_way_of_joining_and_its_schedule(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text(json.dumps({"acting": {"chunking_schedule": "exponential"}}))
    plain, changed = Arm.of("switch"), Arm.of("rtc:zeros")
    assert plain.policy(tmp_path / "policy", tmp_path) == tmp_path / "policy"
    told = json.loads((changed.policy(tmp_path / "policy", tmp_path) / "config.json").read_text())
    assert (changed.chunking, told["acting"]["chunking_schedule"]) == ("rtc", "zeros")
    for name in ("rct", "rtc:zero"):
        with pytest.raises(ConfigError, match="Expected one of"):
            Arm.of(name)
