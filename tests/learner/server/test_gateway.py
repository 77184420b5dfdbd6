import dataclasses
import os
import random
import re
import time

import pytest
import zmq

from learner.server.act_requests import MAX_ACT_REQUESTS
from serl_launcher import journal
from serl_launcher.errors import ConfigError, PolicyError, SessionFenced, SpecMismatch, TransportError
from serl_launcher.events import MAX_EVENT_BYTES
from serl_launcher.publication import Publisher
from serl_launcher.transport import act_frames, messages
from serl_launcher.transport.messages import Act, Announcement, ErrorReply, Heartbeat, Hello, Steps, Welcome
from tests.transport_rig import (
    OTHER_SPEC,
    QUICK,
    SPEC,
    client,
    encoded,
    episode,
    learner,
    observation,
    spool,
    wait_until,
)


@pytest.fixture(name="raw")
def fixture_raw():
    """Connects a bare socket, as a stranger would."""
    context = zmq.Context()
    sockets = []

    def connect(port):
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 3000)
        socket.connect(f"tcp://127.0.0.1:{port}")
        sockets.append(socket)
        return socket

    yield connect
    for socket in sockets:
        socket.close()
    context.term()


def ask(socket, message, *frames):
    socket.send_multipart([messages.encode(message), *frames])
    return messages.decode_reply(socket.recv_multipart()[0])


def hello(actor_id="stranger", epoch=1, spool_id="bare"):
    return Hello(actor_id, epoch, SPEC.digest(), SPEC, spool_id, 0)


def test_recorded_episodes_arrive_whole(tmp_path):
    events = episode("e-0", 30)
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        for event in events:
            source.append(event)
        assert actor.flush(10)
        assert source.num_pending == 0
        assert server.journal.read_episode("e-0").steps == events[1:-1]


def test_the_figures_of_an_actor_are_shown_beside_what_it_delivered(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        for event in episode("e-0", 2):
            source.append(event)
        actor.send_stats({"success": 0.5, "phase": "online"})
        assert actor.flush(10)
        assert wait_until(lambda: "success" in server.gateway.snapshot().get("actor-0", {}))
        shown = server.gateway.snapshot()["actor-0"]
        assert (shown["steps"], shown["episodes"], shown["success"], shown["phase"]) == (2, 1, 0.5, "online")
        assert shown["is_connected"]


@pytest.mark.parametrize(
    ("bind", "is_refused"), [("0.0.0.0", True), ("*", True), ("192.0.2.1", True), ("127.0.0.1", False)]
)
def test_without_keys_only_loopback_is_served(tmp_path, bind, is_refused):
    config = dataclasses.replace(QUICK, bind=bind)
    if is_refused:
        with pytest.raises(ConfigError, match="insecure"), learner(tmp_path, config):
            pass
    else:
        with learner(tmp_path, config):
            pass


def test_insecure_listens_everywhere_and_says_so_loudly(tmp_path, caplog):
    with learner(tmp_path, dataclasses.replace(QUICK, bind="0.0.0.0", insecure=True)) as server:
        assert server.gateway.ports[0] > 0
    assert "INSECURE" in caplog.text


def test_a_port_in_use_is_named(tmp_path):
    with (
        learner(tmp_path / "a") as server,
        pytest.raises(TransportError, match=str(server.config.request_port)),
        learner(tmp_path / "b", server.config),
    ):
        pass


def test_another_robot_is_refused_with_both_sides_named(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as first:
        assert wait_until(lambda: first.is_connected)
        with (
            spool(tmp_path, "actor-1") as other,
            client(server.config, other, actor_id="actor-1", spec=OTHER_SPEC) as second,
        ):
            assert wait_until(lambda: second.last_error is not None)
            assert isinstance(second.last_error, SpecMismatch)
            assert SPEC.digest()[:8] in str(second.last_error)
            assert OTHER_SPEC.digest()[:8] in str(second.last_error)
            assert not second.is_connected
        assert first.is_connected


def test_a_second_living_actor_of_one_id_is_told(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path / "a") as one, client(server.config, one) as first:
        assert wait_until(lambda: first.is_connected)
        time.sleep(1.1)  # Epochs follow the clock in seconds; the second must be the newer.
        with spool(tmp_path / "b") as two, client(server.config, two) as second:
            assert wait_until(lambda: second.last_error is not None)
            assert isinstance(second.last_error, SessionFenced)
            assert "actor.id" in str(second.last_error)
            assert first.is_connected


def test_a_robot_with_a_new_disk_is_admitted_once_the_old_session_is_silent(tmp_path, raw):
    with learner(tmp_path) as server:
        former = raw(server.config.request_port)
        assert isinstance(ask(former, hello(actor_id="actor-0")), Welcome)
        with spool(tmp_path) as source, client(server.config, source) as actor:
            assert wait_until(lambda: actor.is_connected)
            assert actor.last_error is None


def test_an_actor_that_ends_in_good_order_is_seen_to_be_gone_at_once(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source:
        with client(server.config, source) as actor:
            assert wait_until(lambda: actor.is_connected)
            assert server.gateway.snapshot()["actor-0"]["is_connected"]
        assert not server.gateway.snapshot()["actor-0"]["is_connected"]


def test_a_newer_session_shuts_out_the_one_that_still_runs(tmp_path, raw):
    with learner(tmp_path) as server:
        older, newer = raw(server.config.request_port), raw(server.config.request_port)
        assert isinstance(ask(older, hello(epoch=1)), Welcome)
        assert isinstance(ask(newer, hello(epoch=2)), Welcome)
        assert messages.decode_reply(older.recv_multipart()[0]).kind == "SessionFenced"
        assert ask(older, Heartbeat()).kind == messages.NO_SESSION
        assert ask(older, hello(epoch=1)).kind == "SessionFenced"
        assert ask(newer, Heartbeat()) == Heartbeat()


def test_nothing_is_answered_before_a_hello(tmp_path, raw):
    with learner(tmp_path) as server:
        assert ask(raw(server.config.request_port), Steps(1, 1), b"x").kind == messages.NO_SESSION


def test_another_protocol_version_is_refused_with_both_versions_named(tmp_path, raw):
    with learner(tmp_path) as server:
        stranger = raw(server.config.request_port)
        stranger.send(b"hi\x09" + messages.encode(Heartbeat())[3:])
        reply = messages.decode_reply(stranger.recv_multipart()[0])
        assert reply.kind == "ProtocolError"
        assert "version 2 (this side), got version 9" in reply.message


def test_malformed_messages_do_not_disturb_a_good_actor(tmp_path, raw):
    draw = random.Random(1)
    valid = [messages.encode(message) for message in (hello(), Steps(1, 3), Act(1, 100.0, 2), Heartbeat())]
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        stranger = raw(server.config.request_port)
        for _ in range(2000):
            damaged = bytearray(draw.choice(valid))
            for _ in range(draw.randint(1, 4)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            stranger.send_multipart(
                [bytes(damaged[: draw.randint(0, len(damaged))]), os.urandom(5)][: draw.randint(1, 2)]
            )
        for event in episode("e-0", 20):
            source.append(event)
        assert actor.flush(20)
        [chunk] = actor.act([observation(3)], timeout_s=5)
        assert chunk.actions[0, 0] == 3
        assert server.gateway.figures()["num_malformed"] > 100


def test_a_wrong_number_of_frames_is_refused(tmp_path, raw):
    with learner(tmp_path) as server:
        stranger = raw(server.config.request_port)
        assert isinstance(ask(stranger, hello()), Welcome)
        assert "one per event" in ask(stranger, Steps(1, 2), b"x").message
        reply = ask(stranger, Act(9, 100.0, 1))
        assert (reply.kind, reply.request_id) == ("ProtocolError", 9)


def test_a_steps_request_beyond_the_limit_is_refused_by_its_class(tmp_path, raw):
    with learner(tmp_path, dataclasses.replace(QUICK, dead_after_s=30.0)) as server:
        stranger = raw(server.config.request_port)
        stranger.setsockopt(zmq.RCVTIMEO, 30_000)
        assert isinstance(ask(stranger, hello()), Welcome)
        reply = ask(stranger, Steps(1, 3), *[bytes(MAX_EVENT_BYTES // 2)] * 3)
        assert (reply.kind, "at most" in reply.message) == ("ProtocolError", True)


def test_another_hello_does_not_bring_new_credits(tmp_path, raw):
    with learner(tmp_path) as server:
        server.inference.is_silent = True
        stranger = raw(server.config.request_port)
        observed = act_frames.encode_observation_frames(encoded())
        for number in range(MAX_ACT_REQUESTS):
            if number % 16 == 0:
                assert isinstance(ask(stranger, hello(epoch=1 + number)), Welcome)
            stranger.send_multipart([messages.encode(Act(number, 60_000.0, 1)), *observed])
        assert isinstance(ask(stranger, hello(epoch=100)), Welcome)
        assert "at most 64" in ask(stranger, Act(99, 60_000.0, 1), *observed).message


def test_actions_do_not_wait_for_the_disk_that_admits_another_actor(tmp_path, raw):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        assert wait_until(lambda: actor.is_connected)
        other = raw(server.config.request_port)
        with server.journal._store.begin(write=True):  # As while a commit waits for a slow disk.
            other.send_multipart([messages.encode(hello())])
            time.sleep(0.2)
            [chunk] = actor.act([observation(3)], timeout_s=2)
            assert chunk.actions[0, 0] == 3
            assert not other.poll(0)
        assert isinstance(messages.decode_reply(other.recv_multipart()[0]), Welcome)


def test_a_full_disk_of_the_learner_pauses_delivery_and_no_actions(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(journal, "_MAP_BYTES", 2**22)
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        for event in episode("e-0", 1500):
            source.append(event)
        assert actor.flush(10)
        for event in episode("e-1", 1500):
            source.append(event)
        assert wait_until(lambda: "cannot write its journal" in str(actor.last_error))
        for number in range(20):
            [chunk] = actor.act([observation(number)], timeout_s=0.5)
            assert chunk.actions[0, 0] == number
            assert actor.is_connected
            time.sleep(0.1)
        assert caplog.text.count("Not delivering now") <= 2  # By put, or by what is kept for sealing.
        assert source.num_pending
        assert re.search("kept for sealing|MDB_MAP_FULL", str(server.gateway.figures()["storage_error"]))
        server.journal.mark_sealed({"e-0": 0})
        assert actor.flush(20)
        assert actor.last_error is None
        assert server.journal.counts().num_steps == 3000


def test_two_that_come_at_once_under_one_id_are_not_both_admitted(tmp_path, raw):
    with learner(tmp_path) as server:
        one, two = raw(server.config.request_port), raw(server.config.request_port)
        with server.journal._store.begin(write=True):
            one.send_multipart([messages.encode(hello(spool_id="one"))])
            time.sleep(0.2)
            assert ask(two, hello(epoch=2, spool_id="two")).kind == messages.ID_IN_USE
        assert isinstance(messages.decode_reply(one.recv_multipart()[0]), Welcome)


def test_a_late_joiner_has_the_announcement_within_a_second(tmp_path):
    with learner(tmp_path) as server:
        publisher = Publisher(tmp_path / "policies")
        publication = publisher.publish(lambda path: (path / "model").write_bytes(b"weights"), 7)
        server.gateway.announce(paused=True)
        with spool(tmp_path) as source, client(server.config, source) as actor:
            assert wait_until(lambda: actor.announcement is not None and actor.announcement.policy_version == 7, 1.0)
            announced = actor.announcement
            assert isinstance(announced, Announcement)
            assert (announced.policy_digest, announced.paused, announced.stop) == (publication.digest, True, False)


def test_a_stop_and_a_new_policy_are_announced_at_once(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        assert wait_until(lambda: actor.announcement is not None)
        server.gateway.announce(stop=True)
        assert wait_until(lambda: actor.announcement.stop, 1.0)
        Publisher(tmp_path / "policies").publish(lambda path: (path / "model").write_bytes(b"weights"), 1)
        assert wait_until(lambda: actor.announcement.policy_version == 1, 1.0)


def test_an_error_of_the_policy_reaches_the_actor_by_its_class(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        server.inference.error = ErrorReply("PolicyError", "no policy")
        with pytest.raises(PolicyError, match="no policy"):
            actor.act([observation()], timeout_s=5)


def test_the_backlog_of_one_actor_does_not_hold_up_another(tmp_path):
    config = dataclasses.replace(QUICK, max_batch_events=16)
    with learner(tmp_path, config) as server, spool(tmp_path, "greedy") as backlog, spool(tmp_path, "modest") as little:
        for event in episode("greedy-0", 3200):
            backlog.append(event)
        with client(server.config, little, actor_id="modest") as modest:
            assert wait_until(lambda: modest.is_connected)
            with client(server.config, backlog, actor_id="greedy"):
                num_served = 0
                while backlog.num_pending:
                    for event in episode(f"modest-{num_served}", 1):
                        little.append(event)
                    assert modest.flush(20)
                    num_served += 1
        assert num_served >= 10
        assert server.journal.counts().num_steps == 3200 + num_served


def test_the_ports_are_free_within_two_seconds(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        assert wait_until(lambda: actor.is_connected)
        began_s = time.monotonic()
        actor.close()
    assert time.monotonic() - began_s < 2
