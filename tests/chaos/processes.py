"""The processes under test, started as a user starts them: a learner and an actor, killed and brought back."""

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from tests.actor.free_ports import free_ports
from tests.chaos.actor_process import DEAD_AFTER_S, FINISH, HEARTBEAT_S
from tests.chaos.history import ActorHistory
from tests.chaos.proxy import LOCALHOST, Proxy

ROOT = Path(__file__).parents[2]
_CLOCK_FOLDER = Path(__file__).parent / "clock"
_START_AGAIN_S = 0.5
_COLLECTING = ("algo=data_collection",)
_GEMMA = ("width=16", "depth=1", "mlp_dim=16", "num_heads=2", "num_kv_heads=1", "head_dim=8")
_VISION = ("image_size=48", "patch_size=24", "width=16", "depth=1", "mlp_dim=16", "num_heads=2")
_TRAINING = (
    "algo=reject_sampling_pi0", "policy=pi0_tiny", *(f"policy.language.{each}" for each in _GEMMA),
    *(f"policy.expert.{each}" for each in _GEMMA), *(f"policy.vision.{each}" for each in _VISION),
    f"policy.tokenizer_path={ROOT / 'robot_infra/assets/sim_pnp_base/tokenizer.model'}", "policy.horizon=4",
    "policy.max_state_dim=3", "policy.max_action_dim=3", "policy.num_steps=2", "policy.delta_actions=false",
    "task=sim_pnp", "algo.batch_size=4", "algo.training_starts=50", "algo.publish_every=5",
    "dataset.offline_fraction=0", "training.checkpoint_period=10",
)  # fmt: skip
FULL_DISK_BYTES = 16384
"""A file may not grow beyond this on a full disk; the two pages in which LMDB keeps its root exist already."""


class Clock:
    """The wall clock of some processes, which can jump."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.jump(0.0)

    def jump(self, offset_s: float) -> None:
        """Sets how far the clock is off."""
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(struct.pack("<d", offset_s))

    def environment(self) -> dict[str, str]:
        """Returns the environment of a process under this clock."""
        paths = [str(_CLOCK_FOLDER), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ, "CHAOS_CLOCK": str(self._path), "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signals a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def limit_disk(pid: int, *, is_full: bool) -> None:
    """Makes every write of a process fail that needs more disk, as on a full one, or lifts that again."""
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_DISK_BYTES if is_full else hard, hard))


class Learner:
    """`python -m learner`; it can be killed whole or in part and be started at another address."""

    def __init__(self, directory: Path, *, has_trainer: bool = False, changes: Sequence[str] = ()) -> None:
        """Starts it: collecting data alone, or training the smallest policy meanwhile, with `changes` of that."""
        self.directory = directory
        self._changes = changes
        self.has_trainer = has_trainer
        self.run_directory = directory / "run" / "chaos"
        self.clock = Clock(directory / "learner.clock")
        self._num_moves = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (directory / "learner.log").open("ab")
        self.address: tuple[str, int, int] = (LOCALHOST, 0, 0)
        self.move()

    def move(self) -> None:
        """Kills what runs and starts on another address and other ports."""
        self.kill()
        self._num_moves += 1
        request_port, broadcast_port = free_ports(2)
        self.address = (f"127.0.0.{1 + self._num_moves % 200}", request_port, broadcast_port)
        self.start()

    def start(self) -> None:
        """Starts at the present address."""
        host, request_port, broadcast_port = self.address
        command = [
            sys.executable, "-m", "learner", *(_TRAINING if self.has_trainer else _COLLECTING),
            f"output_dir={self.directory / 'run'}",
            "unique_identifier=chaos", f"transport.bind={host}", f"transport.request_port={request_port}",
            f"transport.broadcast_port={broadcast_port}", f"transport.heartbeat_s={HEARTBEAT_S}",
            f"transport.dead_after_s={DEAD_AFTER_S}", "resume=auto", *self._changes,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=self.clock.environment(), stdout=self._log, stderr=self._log, start_new_session=True
        )

    @property
    def server_pid(self) -> int | None:
        """Process id of the server, which the supervisor has started; None while there is none."""
        return self._child("learner.server")

    @property
    def trainer_pid(self) -> int | None:
        """Process id of the trainer; None while there is none."""
        return self._child("learner.trainer")

    def _child(self, module: str) -> int | None:
        for pid in self._children():
            with contextlib.suppress(OSError):
                if module in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    return pid
        return None

    def _children(self) -> list[int]:
        assert self._process is not None
        with contextlib.suppress(OSError):
            return [
                int(pid)
                for pid in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            ]
        return []

    def kill(self) -> None:
        """Kills the supervisor, the server and the trainer at once."""
        if self._process is None:
            return
        children = self._children()
        self._process.kill()
        for child in children:
            send_signal(child, signal.SIGKILL)
        self._process.wait()

    def ensure_running(self) -> bool:
        """Starts it again where it has ended by itself; returns whether it had."""
        assert self._process is not None
        if self._process.poll() is None:
            return False
        self.start()
        return True

    def is_serving(self) -> bool:
        """Returns whether somebody listens at the present address."""
        with socket.socket() as probe:
            return probe.connect_ex(self.address[:2]) == 0

    def stop(self, timeout_s: float) -> int:
        """Ends it in good order, by SIGINT; returns its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout_s)

    def close(self) -> None:
        """Kills whatever is left."""
        self.kill()
        self._log.close()


class ActorProcess:
    """One actor behind a proxy of its own; brought back until `finish`."""

    def __init__(self, directory: Path, actor_id: str, *, rate_hz: float, learner: Learner) -> None:
        self.history = ActorHistory(actor_id)
        self.clock = Clock(directory / f"{actor_id}.clock")
        self.proxy = Proxy(lambda: learner.address)
        self._directory = directory
        self._command = [sys.executable, "-m", "tests.chaos.actor_process", str(directory), actor_id, str(rate_hz)]
        self._log = (directory / f"{actor_id}.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._ended_s = 0.0
        self.num_unasked_ends = 0
        self.is_finishing = False
        self.write_address()
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def write_address(self) -> None:
        """Tells the actor where the learner is now."""
        path = self._directory / f"{self.history.actor_id}.address"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(f"{LOCALHOST} {self.proxy.ports[0]} {self.proxy.ports[1]}\n")
        temporary.replace(path)

    def start(self) -> None:
        """Starts the process."""
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self.clock.environment(), stdout=subprocess.PIPE, stderr=self._log
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """Kills it; `ensure_running` brings it back."""
        assert self._process is not None
        self._process.kill()

    def ensure_running(self) -> None:
        """Starts it again a moment after it has ended, however that came."""
        assert self._process is not None
        if self._process.poll() is None:
            self._ended_s = 0.0
            return
        if not self._ended_s:
            self._ended_s = time.monotonic()
            self.num_unasked_ends += self._process.returncode != -signal.SIGKILL
        if time.monotonic() - self._ended_s < _START_AGAIN_S:
            return
        assert self._reader is not None
        self._reader.join()  # All that the dead one said comes first.
        if self.is_finishing and self.history.ended_seq is not None:
            return
        self.start()

    def finish(self) -> None:
        """Asks it to end in good order, now and after every further start."""
        self.is_finishing = True
        (self._directory / FINISH).touch()
        send_signal(self.pid, signal.SIGTERM)

    @property
    def is_finished(self) -> bool:
        """Whether it ended in good order with nothing pending."""
        assert self._process is not None
        assert self._reader is not None
        return self._process.poll() is not None and not self._reader.is_alive() and self.history.ended_seq is not None

    def close(self) -> None:
        """Kills what is left."""
        self.kill()
        assert self._process is not None
        self._process.wait()
        self.proxy.close()
        self._log.close()

    def _read(self, source: IO[bytes]) -> None:
        with source:
            for line in source:
                if line.endswith(b"\n"):
                    self.history.read(line.decode().rstrip("\n"))


def wait_until(is_true: Callable[[], bool], timeout_s: float, poll: Callable[[], None]) -> bool:
    """Calls `poll` until the condition holds; returns whether it came true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline_s:
            return False
        poll()
        time.sleep(0.05)
    return True
