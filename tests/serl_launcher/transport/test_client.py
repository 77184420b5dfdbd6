import contextlib
import dataclasses
import threading
import time

import numpy as np
import pytest

from serl_launcher.errors import DeadlineExceeded, PolicyError, ProtocolError, Refused, TransportError
from serl_launcher.publication import Publisher, verify
from serl_launcher.transport.address import locate
from serl_launcher.transport.client import LearnerClient
from tests.transport_rig import QUICK, SPEC, client, episode, learner, observation, spool, wait_until


def test_actions_come_per_observation_with_the_version_of_the_weights(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        chunks = actor.act([observation(1), observation(2)], timeout_s=5)
        assert [chunk.policy_version for chunk in chunks] == [5, 5]
        np.testing.assert_array_equal(chunks[1].actions, np.full((4, 2), 2, np.float32))
        assert chunks[0].actions.dtype == np.float32
        assert chunks[0].timings_ms["round_trip"] > 0
        assert chunks[0].timings_ms["model"] == 1.0


def test_a_silent_policy_ends_at_the_deadline(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        server.inference.is_silent = True
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="No answer in time"):
            actor.act([observation()], timeout_s=0.5)
        assert 0.4 < time.monotonic() - began_s < 1.5


def test_without_a_learner_actions_end_at_the_deadline_and_recording_goes_on(tmp_path):
    config = dataclasses.replace(QUICK, request_port=1, broadcast_port=2)
    with spool(tmp_path) as source, client(config, source) as actor:
        with pytest.raises(DeadlineExceeded, match="cannot be reached"):
            actor.act([observation()], timeout_s=0.3)
        for event in episode("e-0", 5):
            source.append(event)
        assert not actor.flush(0.2)
        assert not actor.is_connected
        assert source.num_pending == 7


def test_observations_that_do_not_fit_are_refused_before_they_are_sent(tmp_path):
    with spool(tmp_path) as source, client(QUICK, source) as actor:
        wrong = observation()
        wrong.state = np.zeros(3, np.float32)
        with pytest.raises(ValueError, match="shape"):
            actor.act([wrong], timeout_s=1)


def test_closing_ends_requests_under_way_and_may_be_repeated(tmp_path):
    with spool(tmp_path) as source, client(QUICK, source) as actor:
        future = actor.act_async([observation()], timeout_s=30)
        began_s = time.monotonic()
        actor.close()
        actor.close()
        assert time.monotonic() - began_s < 2
        with pytest.raises(Refused, match="closed"):
            future.result(1)
        with pytest.raises(Refused, match="closed"):
            actor.act([observation()], timeout_s=1)


def test_a_client_that_was_never_started_closes(tmp_path):
    with spool(tmp_path) as source:
        LearnerClient(QUICK, "127.0.0.1", actor_id="actor-0", spec=SPEC, spool=source).close()


def test_an_actor_may_start_before_the_learner(tmp_path):
    with learner(tmp_path) as server:
        config = server.config
    with spool(tmp_path) as source, client(config, source) as actor:
        for event in episode("e-0", 5):
            source.append(event)
        time.sleep(0.3)
        with learner(tmp_path, config) as server:
            assert actor.flush(10)
            assert len(server.journal.read_episode("e-0").steps) == 5


def test_a_restarted_learner_is_found_again_and_nothing_is_lost_or_doubled(tmp_path):
    events = episode("e-0", 600)
    with learner(tmp_path) as server, spool(tmp_path) as source:
        config = server.config
        with client(config, source) as actor:
            for event in events[:300]:
                source.append(event)
            assert actor.flush(10)
    with spool(tmp_path) as source, client(config, source) as actor:
        recorder = threading.Thread(target=lambda: [source.append(event) for event in events[300:]])
        recorder.start()
        for _ in range(3):
            with learner(tmp_path, config):
                time.sleep(0.15)
        recorder.join()
        with learner(tmp_path, config) as server:
            assert actor.flush(20)
            assert server.journal.read_episode("e-0").steps == events[1:-1]
            assert server.journal.counts().num_steps == 600


def test_the_learner_may_move_to_another_address(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source:
        actor = LearnerClient(server.config, "127.0.0.2", actor_id="actor-0", spec=SPEC, spool=source)
        actor.start()
        time.sleep(0.2)
        assert not actor.is_connected
        actor.set_address("127.0.0.1")
        assert wait_until(lambda: actor.is_connected)
        actor.close()


def test_a_learner_that_moves_to_another_address_and_other_ports_is_found_again(tmp_path):
    place = tmp_path / "address"
    events = episode("e-0", 40)
    with spool(tmp_path) as source:
        actor = LearnerClient(QUICK, f"file:{place}", actor_id="actor-0", spec=SPEC, spool=source)
        actor.start()
        assert wait_until(lambda: isinstance(actor.last_error, TransportError))
        assert str(place) in str(actor.last_error)
        for address, part in (("127.0.0.1", events[:20]), ("127.0.0.2", events[20:])):
            with learner(tmp_path, dataclasses.replace(QUICK, bind=address)) as server:
                ports = server.config.request_port, server.config.broadcast_port
                place.write_text(f"{address} {ports[0]} {ports[1]}\n")
                for event in part:
                    source.append(event)
                assert actor.flush(20)
                assert actor.last_error is None
                num_steps = server.journal.counts().num_steps
        assert num_steps == 40
        actor.close()


@pytest.mark.parametrize("content", ["", "host 1", "host 1 2 3", "host 0 5", "host 70000 5", "host one two"])
def test_an_address_file_that_says_something_else_is_refused(tmp_path, content):
    (tmp_path / "address").write_text(content)
    with pytest.raises(TransportError, match="request port"):
        locate(f"file:{tmp_path / 'address'}", QUICK)


def test_an_address_file_may_leave_the_ports_as_configured(tmp_path):
    (tmp_path / "address").write_text("gpu-machine\n")
    assert locate(f"file:{tmp_path / 'address'}", QUICK) == ("gpu-machine", QUICK)


def test_a_late_joiner_has_the_weights_within_a_second(tmp_path):
    with learner(tmp_path) as server:
        published = publish(tmp_path, 4, {"model": bytes(1_000_000)})
        time.sleep(0.3)
        took_s = []
        for attempt in range(3):  # The best counts: other processes may have the machine.
            with spool(tmp_path) as source:
                began_s = time.monotonic()
                with client(server.config, source) as actor:
                    assert wait_until(lambda actor=actor: actor.announcement is not None)
                    version = actor.announcement.policy_version
                    fetched = actor.fetch_policy(version, tmp_path / f"fetched-{attempt}" / "4", timeout_s=10)
                    took_s.append(time.monotonic() - began_s)
            assert verify(fetched).digest == published.digest
    assert min(took_s) < 1.0


def test_a_request_survives_the_restart_of_the_learner(tmp_path):
    with contextlib.ExitStack() as stack:
        with learner(tmp_path) as server:
            config = server.config
            server.inference.is_silent = True
            actor = stack.enter_context(client(config, stack.enter_context(spool(tmp_path))))
            assert wait_until(lambda: actor.is_connected)
            future = actor.act_async([observation(2)], timeout_s=20)
            time.sleep(0.2)
        with learner(tmp_path, config):
            [chunk] = future.result(20)
            assert chunk.actions[0, 0] == 2


def publish(root, version, files):
    def write(path):
        for name, content in files.items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(content)

    return Publisher(root / "policies").publish(write, version)


FILES = {"model.safetensors": bytes(range(256)) * 9000, "config.json": b"{}", "empty": b"", "sub/tokens": b"abc"}


def test_a_policy_is_fetched_whole_and_verified(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        published = publish(tmp_path, 12, FILES)
        fetched = actor.fetch_policy(12, tmp_path / "fetched" / "12", timeout_s=10)
        assert verify(fetched).digest == published.digest
        assert {name: (fetched / name).read_bytes() for name in FILES} == FILES
        assert actor.fetch_policy(12, fetched, timeout_s=10) == fetched
        assert [path.name for path in fetched.parent.iterdir()] == ["12"]


def test_a_cut_off_fetch_goes_on_where_it_stopped(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        published = publish(tmp_path, 1, FILES)
        partial = tmp_path / ".fetched.part"
        partial.mkdir()
        (partial / "manifest.json").write_bytes((published.path / "manifest.json").read_bytes())
        (partial / "model.safetensors.part").write_bytes(FILES["model.safetensors"][:1_000_001])
        (partial / "config.json").write_bytes(FILES["config.json"])
        actor.fetch_policy(1, tmp_path / "fetched", timeout_s=10)
        assert verify(tmp_path / "fetched").digest == published.digest


def test_damage_in_an_earlier_attempt_is_found_and_the_next_fetch_succeeds(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        published = publish(tmp_path, 1, FILES)
        partial = tmp_path / ".fetched.part"
        partial.mkdir()
        (partial / "manifest.json").write_bytes((published.path / "manifest.json").read_bytes())
        (partial / "model.safetensors.part").write_bytes(b"x" * 1000)
        with pytest.raises(PolicyError, match="damaged"):
            actor.fetch_policy(1, tmp_path / "fetched", timeout_s=10)
        assert verify(actor.fetch_policy(1, tmp_path / "fetched", timeout_s=10)).digest == published.digest


def test_a_policy_that_was_damaged_on_this_disk_is_fetched_again(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        published = publish(tmp_path, 1, FILES)
        fetched = actor.fetch_policy(1, tmp_path / "fetched", timeout_s=10)
        (fetched / "model.safetensors").write_bytes(b"damaged")
        assert verify(actor.fetch_policy(1, fetched, timeout_s=10)).digest == published.digest


def test_pieces_of_another_version_are_not_mixed_in(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        partial = tmp_path / ".fetched.part"
        partial.mkdir()
        (partial / "manifest.json").write_bytes(b"of another version")
        (partial / "config.json").write_bytes(b"of another version")
        publish(tmp_path, 1, FILES)
        assert verify(actor.fetch_policy(1, tmp_path / "fetched", timeout_s=10)).version == 1


def test_an_unknown_version_is_refused_and_the_newest_named(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        publish(tmp_path, 3, FILES)
        assert wait_until(lambda: actor.announcement is not None and actor.announcement.policy_version == 3)
        with pytest.raises(PolicyError, match="the newest is 3"):
            actor.fetch_policy(99, tmp_path / "fetched", timeout_s=10)


def test_files_outside_the_publication_are_not_served(tmp_path):
    with learner(tmp_path) as server, spool(tmp_path) as source, client(server.config, source) as actor:
        published = publish(tmp_path, 3, FILES)
        (published.path.parent / "secret").write_bytes(b"secret")
        manifest = (published.path / "manifest.json").read_text().replace("sub/tokens", "../secret")
        (published.path / "manifest.json").write_text(manifest)
        with pytest.raises(ProtocolError, match="inside the directory"):
            actor.fetch_policy(3, tmp_path / "fetched", timeout_s=10)
