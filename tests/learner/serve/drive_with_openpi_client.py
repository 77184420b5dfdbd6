"""Run by a Python that has openpi-client and not hiors: drives the server at a port, writes what came as JSON."""

import json
import sys

import numpy as np
from openpi_client import action_chunk_broker, image_tools, msgpack_numpy, websocket_client_policy
from openpi_client.runtime import environment, runtime
from openpi_client.runtime.agents import policy_agent

PORT, API_KEY = int(sys.argv[1]), sys.argv[2]
SHAPES = [(720, 1280), (180, 320), (480, 640), (100, 50), (224, 224)]


class Reacher(environment.Environment):
    """Twelve steps; the policy is told the step number and repeats it."""

    def __init__(self):
        self.actions = []

    def reset(self):
        self.num_steps = 0

    def is_episode_complete(self):
        return self.num_steps >= 12

    def get_observation(self):
        image = image_tools.convert_to_uint8(image_tools.resize_with_pad(np.zeros((30, 40, 3), np.uint8), 16, 16))
        state = np.full(2, self.num_steps / 16)
        return {"observation/images/cam": image, "observation/state": state, "prompt": "reach"}

    def apply_action(self, action):
        self.actions.append(float(action["actions"][0]))
        self.num_steps += 1


def main():
    client = websocket_client_policy.WebsocketClientPolicy(host="localhost", port=PORT, api_key=API_KEY)
    env = Reacher()
    broker = action_chunk_broker.ActionChunkBroker(client, action_horizon=3)
    runtime.Runtime(env, policy_agent.PolicyAgent(broker), [], num_episodes=1).run()
    answer = client.infer({"images": {"cam": np.zeros((16, 16, 3), np.uint8)}, "state": np.zeros(2)})
    try:
        client.infer({"state": np.zeros(2)})
        error = ""
    except RuntimeError as exc:
        error = str(exc)
    try:
        client.infer({})
        after = ""
    except Exception as exc:
        after = f"{type(exc).__name__} {getattr(exc, 'code', '')}"
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]
    sys.stdout.write(json.dumps({
        "metadata": client.get_server_metadata(), "executed": env.actions,
        "shape": list(answer["actions"].shape), "dtype": str(answer["actions"].dtype),
        "timings": sorted(answer["server_timing"]), "error": error, "after": after,
        "sums": [int(image_tools.resize_with_pad(image, 224, 224).astype(np.int64).sum()) for image in images],
        "packed": msgpack_numpy.packb({"a": np.arange(6.0).reshape(2, 3), "b": np.float64(2)}).hex(),
    }) + "\n")  # fmt: skip


main()
