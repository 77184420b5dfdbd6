"""An endpoint on a free port of this machine, in front of a policy that repeats the state."""

import contextlib
import time

import numpy as np

from learner.serve.endpoint import Endpoint, EndpointConfig, EndpointThread
from learner.serve.robots import served_robot
from learner.server.inference import InferenceService
from serl_launcher.config.training import ServerConfig
from serl_launcher.specs import CameraSpec, RobotSpec

SPEC = RobotSpec(
    name="two_joints",
    cameras=(CameraSpec(name="cam", height=16, width=16, encoding="raw"),),
    state_names=("x", "y"),
    action_names=("x", "y"),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    control_hz=10.0,
)
OBSERVATION = {
    "images": {"cam": np.zeros((3, 16, 16), np.uint8)}, "state": np.array([0.25, 0.5]), "prompt": "reach"
}  # fmt: skip


class Repeats:
    """Gives chunks of four that repeat the state; may be slow, and fails on states above one."""

    def __init__(self, spec=SPEC, *, delay_s=0.0):
        self.spec = spec
        self.delay_s = delay_s
        self.batch_sizes = []
        self.prompts = []
        self.images = []

    def act(self, images, state, prompts):
        self.batch_sizes.append(len(prompts))
        self.prompts += prompts
        self.images.append(images)
        time.sleep(self.delay_s)
        if (state > 1).any():
            raise RuntimeError("this state is out of this world")
        return np.repeat(state[:, None], 4, axis=1).astype(np.float32)


@contextlib.contextmanager
def serving(policy=None, *, recording=None, robot="native", max_wait_ms=2.0, **config):
    """Yields the port of a running endpoint."""
    policy = policy or Repeats()
    inference = InferenceService(ServerConfig(max_wait_ms=max_wait_ms))
    inference.swap(policy, 3)
    inference.start()
    served = served_robot(policy.spec, robot, default_prompt="stand still")
    endpoint = Endpoint(EndpointConfig(port=0, **config), inference, lambda: served, recording=recording)
    thread = EndpointThread(endpoint)
    thread.start()
    try:
        yield endpoint.port
    finally:
        thread.stop()
        inference.stop()
