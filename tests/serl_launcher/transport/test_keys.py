import contextlib
import dataclasses
import shutil

import pytest
import zmq

from serl_launcher.errors import ConfigError, Refused
from serl_launcher.journal import Journal
from serl_launcher.transport import messages
from serl_launcher.transport.keys import AllowList, read_actor_keys
from serl_launcher.transport.messages import Heartbeat
from tests.transport_rig import QUICK, client, episode, learner, spool, wait_until
from tools import keys


@pytest.fixture(name="keys_dir")
def fixture_keys_dir(tmp_path):
    keys.init(tmp_path / "keys")
    keys.add(tmp_path / "keys", "actor-0")
    return tmp_path / "keys"


@pytest.fixture(name="config")
def fixture_config(keys_dir):
    return dataclasses.replace(QUICK, keys_dir=str(keys_dir))


def on_robot(keys_dir, tmp_path, config, robot="actor-0"):
    """Copies the folder of a robot to its machine, as the tool says."""
    copied = tmp_path / f"machine-of-{robot}"
    shutil.copytree(keys_dir / "robots" / robot, copied)
    return dataclasses.replace(config, keys_dir=str(copied))


def test_a_robot_of_the_allow_list_delivers_and_hears_announcements(tmp_path, keys_dir, config):
    with (
        learner(tmp_path, config) as server,
        spool(tmp_path) as source,
        client(on_robot(keys_dir, tmp_path, server.config), source) as actor,
    ):
        for event in episode("e-0", 3):
            source.append(event)
        assert actor.flush(10)
        server.gateway.announce(stop=True)
        assert wait_until(lambda: actor.announcement.stop, 2.0)


def test_with_keys_any_address_may_be_bound(tmp_path, config):
    with learner(tmp_path, dataclasses.replace(config, bind="0.0.0.0")):
        pass


def test_strangers_and_those_without_a_key_get_no_answer(tmp_path, keys_dir, config):
    keys.init(tmp_path / "other")
    keys.add(tmp_path / "other", "actor-0")
    shutil.copy(keys_dir / "learner.public", tmp_path / "other" / "robots" / "actor-0" / "learner.public")
    with learner(tmp_path, config) as server, spool(tmp_path) as source:
        with client(on_robot(tmp_path / "other", tmp_path, server.config), source) as stranger:
            assert not wait_until(lambda: stranger.is_connected, 1.0)
        context = zmq.Context()
        bare = context.socket(zmq.DEALER)
        bare.setsockopt(zmq.LINGER, 0)
        bare.connect(f"tcp://127.0.0.1:{server.config.request_port}")
        bare.send(messages.encode(Heartbeat()))
        assert not bare.poll(500)
        bare.close()
        context.term()


def test_a_robot_is_added_and_removed_while_the_learner_runs(tmp_path, keys_dir, config):
    with learner(tmp_path, config) as server, spool(tmp_path, "arm") as source:
        keys.add(keys_dir, "arm")
        with client(on_robot(keys_dir, tmp_path, server.config, "arm"), source, actor_id="arm") as actor:
            assert wait_until(lambda: actor.is_connected, 5.0)
            keys.remove(keys_dir, "arm")
            assert wait_until(lambda: not actor.is_connected, 5.0)
            assert not wait_until(lambda: actor.is_connected, 0.5)


def test_a_key_speaks_for_its_own_robot_alone(tmp_path, keys_dir, config):
    keys.add(keys_dir, "arm")
    with (
        learner(tmp_path, config) as server,
        spool(tmp_path, "mine") as mine,
        spool(tmp_path, "stolen") as stolen,
        client(on_robot(keys_dir, tmp_path, server.config), mine) as owner,
    ):
        assert wait_until(lambda: owner.is_connected, 5.0)
        with client(on_robot(keys_dir, tmp_path, server.config, "arm"), stolen, actor_id="actor-0") as thief:
            assert wait_until(lambda: thief.last_error is not None, 5.0)
            assert isinstance(thief.last_error, Refused)
            assert "Expected actor.id='arm'" in str(thief.last_error)
            assert "got 'actor-0'" in str(thief.last_error)
            assert not thief.is_connected
        assert owner.is_connected
    with contextlib.closing(Journal(tmp_path / "journal")) as journal:
        assert journal.cursors()["actor-0"].spool_id == mine.spool_id


def test_on_the_machine_of_the_learner_an_actor_finds_its_folder_by_its_id(keys_dir):
    assert read_actor_keys(keys_dir, "actor-0").secret == (keys_dir / "robots/actor-0/actor.secret").read_bytes()


def test_missing_keys_are_named_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(ConfigError, match=r"tools\.keys"):
        read_actor_keys(tmp_path, "actor-0")


def test_a_damaged_file_in_the_allow_list_shuts_out_that_robot_only(keys_dir):
    (keys_dir / "allowed" / "damaged.public").write_bytes(b"short")
    allowed = AllowList(keys_dir)
    assert allowed.robot((keys_dir / "allowed" / "actor-0.public").read_bytes()) == "actor-0"
    assert not allowed.is_allowed(b"short")
