"""A real client at a real port, a real control loop behind it."""

import stat
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serl_launcher.errors import ConfigError
from serl_launcher.types import Outcome, Source
from tests.actor.console.rig import Rig, running
from tests.actor.recording import ended_in, events_in, open_spool, steps_in


def test_a_person_takes_over_drives_and_hands_back(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ana:
        assert ana.welcome["robot"] == "tiny"
        assert [axis["name"] for axis in ana.welcome["axes"]] == ["j0", "j1"]
        ana.until(lambda state: state["source"] == "policy")
        ana.say("take_over")
        began = ana.until(lambda state: state["source"] == "person")
        # Full deflection: a fifth of the range of 4 per second.
        moved = ana.until(lambda state: state["state"][0] > began["state"][0] + 0.1, jog={"j0": 1.0})
        assert moved["state"][1] == pytest.approx(began["state"][1])
        assert moved["has_seat"]
        assert (moved["num_takeovers"], moved["num_human_steps"] > 0) == (1, True)
        ana.say("hand_back")
        ana.until(lambda state: state["source"] == "policy")
    with closing(open_spool(tmp_path)) as spool:
        sources = [step.source for step in steps_in(spool)]
    assert Source.HUMAN in sources
    assert sources[-1] == Source.POLICY


def test_no_command_of_the_console_leaves_the_limits(tmp_path: Path):
    with running(tmp_path, jog_speed=1.0) as rig, rig.viewer() as ana:
        ana.say("take_over")
        ana.until(lambda state: state["state"][0] > 0.5, jog={"j0": 50.0, "j1": -1.0})
        ana.until(lambda state: state["state"][0] < 0.0, jog={"j0": -1.0, "j1": 1e300})
        commands = np.stack(rig.robot.commands)
    assert np.abs(np.diff(commands, axis=0)).max() <= 0.2 + 1e-6
    assert np.abs(commands).max() <= 2.0


def test_labels_end_the_episode_and_the_last_one_can_be_corrected_and_taken_back(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ana:
        for said, outcome in (("success", "success"), ("failure", "failure"), ("aborted", "aborted")):
            before = ana.until(lambda state: state["step"] > 2)["episode"]
            ana.say("judge", outcome=said)
            after = ana.until(lambda state, before=before: state["episode"] > before)
            assert after["last_outcome"] == outcome
        ana.say("correct", outcome="success")
        ana.until(lambda state: state["last_outcome"] == "success")
        ana.say("correct", outcome="unlabelled")
        ana.until(lambda state: state["last_outcome"] == "unlabelled")
    with closing(open_spool(tmp_path)) as spool:
        assert [ended.outcome for ended in ended_in(spool)][:3] == [Outcome.SUCCESS, Outcome.FAILURE, Outcome.ABORTED]
        labels = [event.outcome for event in events_in(spool) if type(event).__name__ == "EpisodeLabelled"]
    assert labels == [Outcome.SUCCESS, Outcome.UNLABELLED]


def test_a_corrected_label_counts_in_the_success_rate(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ana:
        ana.until(lambda state: state["step"] > 2)
        ana.say("judge", outcome="failure")
        assert ana.until(lambda state: state["num_episodes"] == 1)["success_rate_20"] == 0.0
        ana.say("correct", outcome="success")
        ana.until(lambda state: state["success_rate_20"] == 1.0)


def test_everybody_may_stop_the_robot_and_it_moves_again_only_when_a_person_clears_that(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ana, rig.viewer() as ben:
        ana.say("name", name="Ana")
        ana.say("take_over")
        ana.until(lambda state: state["has_seat"])
        ben.say("name", name="Ben")
        ben.say("stop")
        assert "Ben pressed STOP" in ana.until(lambda state: state["fault"])["fault"]
        time.sleep(0.1)
        num_commands = len(rig.robot.commands)
        ana.until(lambda state: state["still_s"] > 0.3, jog={"j0": 1.0})
        assert len(rig.robot.commands) == num_commands
        ben.say("clear")
        assert "Ana is in control" in ben.until_refused()
        ana.say("clear")
        ana.until(lambda state: not state["fault"] and state["source"] == "policy")
        assert ana.state["last_outcome"] == "aborted"


def test_only_one_viewer_is_in_control_until_the_seat_is_released(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ana, rig.viewer() as ben:
        ana.say("name", name="Ana")
        ana.say("take_over")
        assert ben.until(lambda state: state["holder"] == "Ana")["has_seat"] is False
        for words in ({"kind": "take_over"}, {"kind": "hand_back"}, {"kind": "judge", "outcome": "success"}):
            ben.refusals.clear()
            ben.say(**words)
            assert "Ana is in control" in ben.until_refused()
        ben.jog(j0=1.0)
        ana.say("hand_back")
        ana.say("release")
        ben.until(lambda state: not state["holder"])
        ben.say("take_over")
        assert ben.until(lambda state: state["has_seat"])["mode"] == "driving"
        assert ben.state["num_viewers"] == 2


def test_a_lost_connection_holds_the_robot_until_somebody_decides(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ben:
        with rig.viewer() as ana:
            ana.say("take_over")
            ana.until(lambda state: state["source"] == "person" and state["state"][0] > 0.3, jog={"j0": 1.0})
        held = ben.until(lambda state: state["mode"] == "holding" and state["source"] == "held")
        num_steps = rig.rollout.recorder.num_steps
        time.sleep(0.2)
        still = ben.until(lambda state: state["still_s"] < 0.1)
        assert still["state"] == held["state"]
        # Nobody decided these ticks, so nobody should learn from them.
        assert rig.rollout.recorder.num_steps == num_steps
        ben.say("hand_back")
        ben.until(lambda state: state["source"] == "policy")


def test_a_driver_who_is_not_heard_for_half_a_second_loses_the_robot(tmp_path: Path):
    with running(tmp_path, deadman_s=0.3) as rig, rig.viewer() as ana:
        ana.say("take_over")
        ana.until(lambda state: state["source"] == "person", jog={"j0": 1.0})
        ana.until(lambda state: state["mode"] == "holding")
        # Holding the key again is not enough: the person has to take over again.
        deadline_s = time.monotonic() + 0.3
        while time.monotonic() < deadline_s:
            ana.jog(j0=1.0)
            ana.listen()
        assert ana.state["mode"] == "holding"
        ana.say("take_over")
        ana.until(lambda state: state["source"] == "person", jog={})


def test_the_cameras_are_live(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ana:
        ana.until(lambda state: len(ana.pictures) == 1 and state["step"] > 10)
        picture = simplejpeg.decode_jpeg(ana.pictures[0])
        assert picture.shape == (16, 24, 3)
        seen = picture.mean()
        ana.until(lambda state: abs(simplejpeg.decode_jpeg(ana.pictures[0]).mean() - seen) > 10)
        assert ana.state["rate_hz"] > 0


def test_without_the_token_there_is_neither_page_nor_connection(tmp_path: Path):
    with running(tmp_path) as rig:
        for query in ("", "?token=", "?token=wrong", f"?tokem={rig.token}", f"?token={rig.token[:-1]}"):
            assert_refused(rig, query)


def assert_refused(rig: Rig, query: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{rig.port}/{query}", timeout=5)
    assert refused.value.code == 403
    assert b"whole address" in refused.value.read()
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{rig.port}/live{query}")


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path):
    with running(tmp_path) as rig:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{rig.port}/?token={rig.token}", timeout=5)
        page = answer.read().decode()
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "hiors console" in page
    assert not [word for word in ("https://", "http://", "src=", "@import") if word in page]


def test_words_that_make_no_sense_end_the_connection_and_nothing_else(tmp_path: Path):
    with running(tmp_path) as rig, rig.viewer() as ben:
        for words in ("{}", '{"type": "fly"}', '{"type": "jog", "axes": {"j0": "x"}}', '{"type": "stop", "x": 1}'):
            with rig.viewer() as ana:
                ana.socket.send(words)
                with pytest.raises(ConnectionClosed):
                    ana.until(lambda state: False)
        ben.until(lambda state: state["num_viewers"] == 1 and not state["fault"])


def test_the_token_is_for_its_owner_only_and_stays(tmp_path: Path):
    with running(tmp_path) as rig:
        token = rig.token
    path = tmp_path / "run" / "console-actor-0.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with running(tmp_path) as rig:
        assert rig.token == token


def test_a_taken_port_is_said(tmp_path: Path):
    with running(tmp_path / "first") as rig:
        second = running(tmp_path / "second", port=rig.port)
        with pytest.raises(ConfigError, match=r"actor\.console\.port"):
            second.__enter__()


def test_more_viewers_than_allowed_are_sent_away(tmp_path: Path):
    with running(tmp_path, max_viewers=1) as rig, rig.viewer():
        late = rig.viewer()
        with pytest.raises(ConnectionClosed, match="1 viewers"):
            late.__enter__()
