import urllib.error
import urllib.request

import pytest

from learner.server.frontends import Frontends
from learner.server.inference import InferenceService
from learner.server.prometheus import serve_metrics
from serl_launcher.config.training import ServerConfig
from tests.actor.free_ports import free_ports
from tests.learner.serve.serving import OBSERVATION
from tests.learner.serve.test_endpoint import ask
from tests.learner.server.inference_rig import EchoPolicy, Inbox, submit


def scrape(port, host="127.0.0.1"):
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_inference_and_actors_are_scraped_with_their_newest_figures():
    service, inbox = InferenceService(ServerConfig(max_wait_ms=50.0)), Inbox()
    service.swap(EchoPolicy(), 9)
    for key in (("robot-1", 1), ("robot-2", 1)):
        submit(service, inbox, key, 0.1)
    submit(service, inbox, ("robot-1", 2), 0.1, deadline_s=-1.0)
    actors = {"robot-1": {"latency_ms_p99": 61.5, "is_connected": True, "last_outcome": "success", "gone": None}}
    metrics = serve_metrics(0, inference=service, actors=lambda: actors)
    try:
        service.start()
        inbox.wait_for(3)
        found = scrape(metrics.port)
    finally:
        service.stop()
        metrics.stop()
    assert found["hiors_policy_version"] == "9.0"
    assert found["hiors_inference_answered_total"] == "2.0"
    assert found["hiors_inference_queue_depth"] == "0.0"
    assert found['hiors_inference_batch_size_bucket{le="1"}'] == "0.0"
    assert found['hiors_inference_batch_size_bucket{le="2"}'] == "1.0"
    assert found['hiors_actor_deadline_misses_total{actor="robot-1"}'] == "1.0"
    assert found['hiors_actor_latency_ms_p99{actor="robot-1"}'] == "61.5"
    assert found['hiors_actor_is_connected{actor="robot-1"}'] == "1.0"
    assert not any("last_outcome" in name or "gone" in name for name in found)


def test_the_learner_server_opens_both_ports_that_its_configuration_names():
    metrics_port, openpi_port = free_ports(2)
    config = ServerConfig(prometheus_port=metrics_port, openpi_port=openpi_port)
    service = InferenceService(config)
    service.swap(EchoPolicy(), 2)
    service.start()
    frontends = Frontends(config, service, dict)
    frontends.start()
    try:
        observation = {**OBSERVATION, "images": {"a": OBSERVATION["images"]["cam"]}}
        assert ask(openpi_port, observation)["actions"].shape == (3, 2)
        found = scrape(metrics_port)
        assert found["hiors_inference_answered_total"] == "1.0"
        assert found["hiors_websocket_requests_total"] == "1.0"
        assert found["hiors_websocket_failed_total"] == "0.0"
        assert "hiors_websocket_num_clients" in found
    finally:
        frontends.stop()
        service.stop()


def test_metrics_are_served_where_the_configuration_says():
    [port] = free_ports(1)
    frontends = Frontends(ServerConfig(prometheus_port=port, prometheus_host="127.0.0.2"), None, dict)
    frontends.start()
    try:
        assert scrape(port, "127.0.0.2") == {}
        with pytest.raises(urllib.error.URLError):
            scrape(port)
    finally:
        frontends.stop()
