import pytest

from learner.server.inference import InferenceService
from serl_launcher.config.training import ServerConfig
from tests.learner.server.inference_rig import Inbox


@pytest.fixture(name="inbox")
def fixture_inbox():
    return Inbox()


@pytest.fixture(name="service")
def fixture_service():
    service = InferenceService(ServerConfig(max_batch=4, max_wait_ms=50.0))
    yield service
    service.stop()
