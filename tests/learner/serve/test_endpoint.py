import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

from learner.serve.arguments import parse, predicts_deltas
from learner.serve.endpoint import Endpoint, EndpointConfig, EndpointThread
from learner.serve.packing import pack, unpack
from learner.serve.robots import policy_spec, served_robot
from learner.server.inference import InferenceService
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import ConfigError
from serl_launcher.transforms import robot_transforms
from tests.learner.serve.serving import OBSERVATION, SPEC, Repeats, serving


def ask(port, observation=OBSERVATION, **options):
    with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, **options) as client:
        client.recv()
        client.send(pack(observation))
        return unpack(client.recv())


def health(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as response:
        return response.status, response.read()


def test_metadata_comes_first_and_every_answer_has_actions_and_timings():
    with serving() as port, connect(f"ws://127.0.0.1:{port}", compression=None) as client:
        metadata = unpack(client.recv())
        assert (metadata["robot"], metadata["policy_version"]) == ("two_joints", 3)
        answers = []
        for _ in range(2):
            client.send(pack(OBSERVATION))
            answers.append(unpack(client.recv()))
    first, second = answers
    assert set(first) == {"actions", "policy_timing", "server_timing"}
    np.testing.assert_array_equal(first["actions"], np.tile(np.float32([0.25, 0.5]), (4, 1)))
    assert first["actions"].dtype == np.float32
    assert set(first["server_timing"]) == {"infer_ms"}
    assert set(second["server_timing"]) == {"infer_ms", "prev_total_ms"}
    for answer in answers:
        assert isinstance(answer["policy_timing"]["infer_ms"], float)
        assert 0 <= answer["policy_timing"]["infer_ms"] <= answer["server_timing"]["infer_ms"]
    assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"]


def test_a_bad_observation_gives_the_traceback_and_ends_only_its_connection():
    with serving() as port:
        with connect(f"ws://127.0.0.1:{port}") as client:
            client.recv()
            client.send(pack({"state": np.zeros(2)}))
            text = client.recv()
            assert isinstance(text, str)
            assert text.startswith("Traceback")
            assert "images/cam" in text
            with pytest.raises(ConnectionClosedError) as closed:
                client.recv()
        assert closed.value.rcvd.code == 1011
        assert closed.value.rcvd.reason == "Internal server error. Traceback included in previous frame."
        assert ask(port)["actions"].shape == (4, 2)


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        ({**OBSERVATION, "state": np.array([2.0, 0.0])}, "out of this world"),
        ({**OBSERVATION, "state": np.zeros(5)}, r"state of shape \(2,\)"),
        ({**OBSERVATION, "state": np.array([np.nan, 0.0])}, "finite state"),
        ([1, 2], "map of names"),
        ({"method": "reset", "obs": {}}, "method 'reset'"),
    ],
)
def test_the_traceback_says_what_is_wrong(observation, reason):
    with serving() as port, connect(f"ws://127.0.0.1:{port}") as client:
        client.recv()
        client.send(pack(observation))
        text = client.recv()
    with pytest.raises(RuntimeError, match=reason):
        raise RuntimeError(text)


def test_text_and_garbage_and_oversize_are_refused_and_others_are_served():
    with serving(max_message_bytes=100_000) as port:
        for frame in ("text", b"\xc1 garbage", bytes(200_000)):
            with connect(f"ws://127.0.0.1:{port}") as client:
                client.recv()
                client.send(frame)
                with pytest.raises(ConnectionClosedError):
                    list(iter(client.recv, None))
        assert ask(port)["actions"].shape == (4, 2)


def test_health_is_answered_while_a_policy_call_runs_and_pings_go_on():
    policy = Repeats(delay_s=1.5)
    with serving(policy) as port:
        waiting = threading.Thread(target=ask, args=(port,), kwargs={"ping_interval": 0.2, "ping_timeout": 0.5})
        waiting.start()
        while not policy.batch_sizes:
            time.sleep(0.01)
        started = time.monotonic()
        assert health(port) == (200, b"OK\n")
        with connect(f"ws://127.0.0.1:{port}") as client:
            client.recv()
            assert client.ping().wait(1.0)
        assert time.monotonic() - started < 1.0
        waiting.join(10)


def test_a_stop_does_not_wait_for_a_long_policy_call_and_raises_nothing():
    policy = Repeats(delay_s=8.0)
    inference = InferenceService(ServerConfig())
    inference.swap(policy, 0)
    inference.start()
    endpoint = Endpoint(EndpointConfig(port=0), inference, lambda: served_robot(SPEC))
    thread = EndpointThread(endpoint)
    thread.start()
    with connect(f"ws://127.0.0.1:{endpoint.port}", close_timeout=0.1) as client:
        client.recv()
        client.send(pack(OBSERVATION))
        while not policy.batch_sizes:
            time.sleep(0.01)
        started = time.monotonic()
        thread.stop()
        assert time.monotonic() - started < 5.0
        with pytest.raises((ConnectionClosedError, ConnectionClosedOK)):
            client.recv()
    inference.stop()


def test_clients_that_ask_together_share_policy_calls():
    policy = Repeats(delay_s=0.1)
    with serving(policy, max_wait_ms=100.0) as port:
        clients = [threading.Thread(target=ask, args=(port,)) for _ in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(20)
    assert sum(policy.batch_sizes) == 6
    assert max(policy.batch_sizes) > 1


def test_before_a_policy_is_loaded_nobody_is_told_that_it_is_ready():
    inference = InferenceService(ServerConfig())
    endpoint = Endpoint(EndpointConfig(port=0), inference, lambda: served_robot(SPEC))
    thread = EndpointThread(endpoint)
    thread.start()
    inference.start()
    try:
        with pytest.raises(urllib.error.HTTPError) as unhealthy:
            health(endpoint.port)
        assert unhealthy.value.code == 503
        assert b"No policy" in unhealthy.value.read()
        with pytest.raises(InvalidStatus) as refused:
            ask(endpoint.port)
        assert refused.value.response.status_code == 503
        inference.swap(Repeats(), 0)
        assert health(endpoint.port) == (200, b"OK\n")
        assert ask(endpoint.port)["actions"].shape == (4, 2)
    finally:
        thread.stop()
        inference.stop()


def test_a_client_needs_the_key():
    with serving(api_key="open sesame") as port:
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "open sesame"}):
            with pytest.raises(InvalidStatus) as refused:
                ask(port, additional_headers=headers)
            assert refused.value.response.status_code == 401
        assert health(port)[0] == 200
        assert ask(port, additional_headers={"Authorization": "Api-Key open sesame"})["actions"].shape == (4, 2)


def test_without_a_key_it_listens_on_loopback_only():
    with pytest.raises(ConfigError, match="--api-key-file"):
        EndpointConfig(host="0.0.0.0")
    EndpointConfig(host="0.0.0.0", api_key="k")
    EndpointConfig(host="0.0.0.0", insecure=True)


@pytest.mark.parametrize(
    "observation",
    [
        {"observation/images/cam": np.zeros((16, 16, 3), np.uint8), "observation/state": np.zeros(2)},
        {"observation.images.cam": np.zeros((16, 16, 3), np.uint8), "observation.state": np.zeros(2), "extra": 1},
        {"method": "infer", "obs": OBSERVATION},
        {**OBSERVATION, "prompt": np.array("reach"), "state": [np.float32(0.1), np.float32(0.2)]},
        {**OBSERVATION, "images": {"cam": np.zeros((40, 30, 3), np.float32)}},
    ],
)
def test_observations_come_in_many_forms(observation):
    with serving() as port:
        assert ask(port, observation)["actions"].shape == (4, 2)


def test_an_observation_without_a_prompt_gets_the_default():
    policy = Repeats()
    with serving(policy) as port:
        ask(port, {key: value for key, value in OBSERVATION.items() if key != "prompt"})
        ask(port)
    assert policy.prompts == ["stand still", "reach"]


class FixedActions:
    """Gives [B, 15, 32] ones, and keeps what it saw."""

    def __init__(self, spec):
        self.spec = spec
        self.lanes = []

    def act(self, images, state, prompts):
        return np.ones((len(prompts), 15, 32), np.float32)

    def act_on(self, lanes):
        self.lanes.append(lanes)
        return self.act(lanes.images, lanes.state, lanes.prompts)


@pytest.mark.parametrize("robot", ["aloha", "droid", "libero", "ur5", "yam", "lbm"])
def test_every_robot_is_served_through_its_transforms(robot):
    known = robot_transforms(robot)
    policy = FixedActions(policy_spec(robot, image_size=32))
    with serving(policy, robot=robot) as port:
        answer = ask(port, known.example())
    assert answer["actions"].shape == (15, known.action_dim)
    if robot in ("droid", "libero", "ur5"):
        assert policy.lanes[0].image_valid.tolist() == [[True, True, False]]


def test_relative_actions_become_absolute_where_the_policy_does_not_do_it():
    spec = policy_spec("ur5", image_size=32)
    observation = {**robot_transforms("ur5").example(), "joints": np.arange(6.0), "gripper": np.array([0.5])}
    robot = served_robot(spec, "ur5", delta_actions=True)
    lanes = robot.lanes_of(observation)
    actions = robot.reply_of(np.ones((2, 7), np.float32), lanes)["actions"]
    np.testing.assert_array_equal(actions, [[1, 2, 3, 4, 5, 6, 1]] * 2)
    with pytest.raises(ConfigError, match=r"needs --policy\.robot"):
        served_robot(SPEC, delta_actions=True)


@pytest.mark.parametrize(
    ("options", "relative"),
    [
        (["--policy.config=pi05_aloha"], True), (["--policy.config=pi0_aloha_sim"], False),
        (["--policy.config=pi0_libero"], True), (["--policy.config=pi05_libero"], False),
        (["--policy.config=pi05_droid"], False), (["--policy.config=pi05_droid_jointpos"], True), ([], False),
        (["--policy.config=pi05_libero", "--policy.delta-actions"], True),
        (["--policy.config=pi0_libero", "--no-policy.delta-actions"], False),
    ],
)  # fmt: skip
def test_openpis_configurations_say_whether_actions_are_relative(options, relative):
    assert predicts_deltas(parse(["policy:checkpoint", "--policy.dir=x", *options])) == relative


def test_a_policy_for_other_cameras_is_refused_at_the_start():
    with pytest.raises(ConfigError, match=r"--policy\.robot=native"):
        served_robot(SPEC, "libero")


def test_an_unknown_path_is_no_health_check():
    with serving() as port, pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/other", timeout=5)
