"""An inference service, a policy that repeats what it sees, and where the answers arrive."""

import threading
import time

import numpy as np

from serl_launcher.events import encode_observation
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Observation

SPEC = RobotSpec(
    name="tester", cameras=(CameraSpec(name="a", height=8, width=8, encoding="raw"),), state_names=("x", "y"),
    action_names=("x", "y"), action_low=(-1.0, -1.0), action_high=(1.0, 1.0), control_hz=10.0,
)  # fmt: skip


class EchoPolicy:
    """Repeats the state over a chunk of three; can be slow, fail, or give NaN for negative states."""

    def __init__(self, *, delay_s=0.0, error=None):
        self.spec = SPEC
        self.batch_sizes = []
        self._delay_s, self._error = delay_s, error

    def act(self, images, state, prompts):
        assert images.shape == (len(prompts), 1, 8, 8, 3)
        self.batch_sizes.append(len(prompts))
        time.sleep(self._delay_s)
        if self._error is not None:
            raise self._error
        return np.repeat(np.where(state < 0, np.nan, state)[:, None], 3, axis=1)


class Inbox:
    """Collects answers and lets a test wait for them."""

    def __init__(self):
        self.answers = {}
        self._arrived = threading.Condition()

    def reply_to(self, key):
        def reply(header, actions):
            with self._arrived:
                assert key not in self.answers
                self.answers[key] = (header, actions)
                self._arrived.notify_all()

        return reply

    def wait_for(self, count):
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.answers) >= count, timeout=10)
        return self.answers


def observe(x, y=0.0):
    image = np.zeros((8, 8, 3), np.uint8)
    return encode_observation(Observation(images={"a": image}, state=np.array([x, y], np.float32), prompt="go"), SPEC)


def submit(service, inbox, key, *xs, deadline_s=5.0):
    service.submit(key, [observe(x) for x in xs], time.monotonic() + deadline_s, inbox.reply_to(key))
