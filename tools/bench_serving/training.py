"""A trainer that updates, publishes and checkpoints without pause, with the real parts of one."""

import dataclasses
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import torch

from learner.trainer.checkpoints import Checkpoints, TrainerState
from learner.trainer.publishing import BackgroundPublisher
from serl_launcher import publication
from serl_launcher.policies import Pi0Policy, load_policy, save_policy
from serl_launcher.policies.snapshots import PolicySnapshots
from serl_launcher.publication import Publisher

PUBLISH_EVERY, CHECKPOINT_EVERY = 5, 20
BATCH = 16


class Training:
    """Fits a policy to noise; what it learns does not matter."""

    def __init__(self, policies: Path) -> None:
        """Goes on with the newest policy below `policies`."""
        torch.set_num_threads(1)
        newest = publication.latest(policies)
        assert newest is not None, "publish a first policy"
        self.policy = load_policy(newest.path)
        self.version = newest.version
        self._publisher = BackgroundPublisher(Publisher(policies))
        self._snapshots = PolicySnapshots()
        self._checkpoints = Checkpoints(policies.parent / "checkpoints", keep=2)
        self._optimizer = torch.optim.AdamW(self.policy.network.parameters(), lr=1e-6)

    def run(self, stop: threading.Event) -> None:
        """Trains until `stop` is set."""
        while not stop.is_set():
            self.update()
            self.version += 1
            if self.version % PUBLISH_EVERY == 0:
                self._publisher.publish(partial(self._snapshots.take, self.policy), self.version)
            if self.version % CHECKPOINT_EVERY == 0:
                self._checkpoint()
        self._publisher.close()

    def update(self) -> None:
        """Makes one update on a random batch."""
        loss = random_loss(self.policy, BATCH)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def _checkpoint(self) -> None:
        tensors = {
            f"optimizer/{number}": state["exp_avg"] for number, state in enumerate(self._optimizer.state.values())
        }
        fields = {field.name for field in dataclasses.fields(TrainerState)}
        more = {"counters": {}} if "counters" in fields else {}
        state = TrainerState(tensors=tensors, algorithm={}, mixture={}, seconds_trained=0.0, **more)
        self._checkpoints.save(self.version, lambda directory: save_policy(self.policy, directory), state)


def random_loss(policy: Pi0Policy, batch: int) -> torch.Tensor:
    """Returns the flow-matching loss on a random batch."""
    spec, rng = policy.spec, np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, len(spec.cameras), *spec.cameras[0].shape), dtype=np.uint8)
    state = np.zeros((batch, spec.state_dim), np.float32)
    inputs = policy.prepare(images, state, ["go"] * batch)
    actions = torch.zeros(batch, policy.config.horizon, spec.action_dim)
    is_pad = torch.zeros(batch, policy.config.horizon, dtype=torch.bool)
    return policy.flow_loss(inputs, actions, is_pad).mean()


def main() -> None:
    """Trains on the publications named on the command line until the standard input closes."""
    training = Training(Path(sys.argv[1]))
    stop = threading.Event()
    thread = threading.Thread(target=training.run, args=(stop,))
    thread.start()
    sys.stdout.write("training\n")
    sys.stdout.flush()
    sys.stdin.read()
    stop.set()
    thread.join()


if __name__ == "__main__":
    main()
