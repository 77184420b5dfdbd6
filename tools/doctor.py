"""Looks at this machine and says what to do: `python -m tools.doctor [overrides of the run you are about to start]`.

Checks versions, ports, the learner's address, clocks, disk, keys, GPU, and the devices, arms and cameras that
the configuration names. Changes nothing. Ends with status 1 where something is wrong.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from robot_infra.cameras.build import open_camera
from robot_infra.cameras.options import CameraConfig
from robot_infra.robots.dobot.options import read_options as read_dobot_options
from robot_infra.robots.lerobot_options import read_options as read_lerobot_options
from serl_launcher.config.loader import load, run_main
from serl_launcher.config.root import RunConfig
from serl_launcher.errors import HiorsError
from serl_launcher.run_directory import RunDirectory
from serl_launcher.transport.keys import read_actor_keys, read_learner_keys

MIN_FREE_BYTES = 10 * 1024**3
CONNECT_S, ARM_S = 2.0, 1.0
PICTURES_S = 5.0
NEEDED = ("gymnasium", "hydra-core", "lmdb", "msgspec", "numpy", "pillow", "pyzmq", "simplejpeg", "websockets")
OPTIONAL = {
    "torch": "learner, actor.policy=local and actor.mode=eval",
    "lerobot": "the learner, and robots of LeRobot",
    "av": "videos",
    "matplotlib": "plots",
    "rerun-sdk": "python -m tools.viz",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at.

    Example:
        Finding(what="port 5588", is_well=False, says="in use; stop the other learner")
    """

    what: str
    is_well: bool
    says: str


def check_versions(config: RunConfig) -> Iterator[Finding]:
    """Yields Python and packages."""
    del config
    is_311 = sys.version_info[:2] == (3, 11)
    yield Finding(what="python", is_well=is_311, says=sys.version.split()[0] + ("" if is_311 else "; use Python 3.11"))
    for name in NEEDED:
        version = _version(name)
        yield Finding(what=name, is_well=version is not None, says=version or "missing; pip install hiors")
    for name, use in OPTIONAL.items():
        yield Finding(what=name, is_well=True, says=_version(name) or f"not installed; needed for {use}")


def check_ports(config: RunConfig) -> Iterator[Finding]:
    """Yields the learner's ports: free or answering here, reachable elsewhere."""
    is_here = config.ip in ("localhost", "127.0.0.1", "::1")
    for port in (config.transport.request_port, config.transport.broadcast_port):
        what = f"{config.ip}:{port}"
        try:
            with socket.create_connection((config.ip, port), timeout=CONNECT_S):
                yield Finding(what=what, is_well=True, says="something answers: the learner runs")
        except OSError as exc:
            advice = "free: start the learner" if is_here else f"{exc}; start the learner, check ip and firewall"
            yield Finding(what=what, is_well=is_here, says=advice)


def check_clock(config: RunConfig) -> Iterator[Finding]:
    """Yields whether this machine's clock is kept right, and whether it sleeps well enough for the robot's rate."""
    synced = Path("/run/systemd/timesync/synchronized").exists() or Path("/var/run/chrony").exists()
    says = (
        "kept by the network"
        if synced
        else "not seen to be synchronised (sudo timedatectl set-ntp true); labels of two machines may be out of order"
    )
    yield Finding(what="clock", is_well=True, says=says)
    late_s = max(_oversleep(0.01) for _ in range(50))
    limit_s = 0.2 / config.environment.hz
    yield Finding(
        what="sleep",
        is_well=late_s < limit_s,
        says=f"wakes up to {1e3 * late_s:.1f} ms late"
        + ("" if late_s < limit_s else f"; at {config.environment.hz:g} Hz less than {1e3 * limit_s:.0f} ms is needed: "
           "stop other programs, or give the actor real-time priority"),
    )  # fmt: skip


def check_disk(config: RunConfig) -> Iterator[Finding]:
    """Yields the space for recordings."""
    root = RunDirectory.of(config).root
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    is_well = free > MIN_FREE_BYTES and os.access(existing, os.W_OK)
    yield Finding(
        what="disk",
        is_well=is_well,
        says=f"{free / 1e9:.0f} GB free at {existing}{'' if is_well else '; make room'}",
    )


def check_keys(config: RunConfig) -> Iterator[Finding]:
    """Yields whether there are keys where the configuration wants them."""
    keys_dir = config.transport.keys_dir
    if keys_dir is None:
        says = "none: the learner listens on this machine only" if not config.transport.insecure else "INSECURE"
        yield Finding(what="keys", is_well=not config.transport.insecure, says=says)
        return
    path = Path(keys_dir)
    read: Callable[[], object] = lambda: read_actor_keys(path, config.actor.id)  # noqa: E731 - chosen just below
    if (path / "learner.secret").exists():
        read = lambda: read_learner_keys(path)  # noqa: E731 - likewise
    try:
        read()
        yield Finding(what="keys", is_well=True, says=f"found in {keys_dir}")
    except HiorsError as exc:
        yield Finding(what="keys", is_well=False, says=str(exc))


def check_gpu(config: RunConfig) -> Iterator[Finding]:
    """Yields the accelerators, where torch is installed."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    is_well = len(names) >= config.training.num_gpus
    advice = "" if is_well else f"; training.num_gpus={config.training.num_gpus} needs more: check the driver"
    yield Finding(what="gpu", is_well=is_well, says=(", ".join(names) or "none") + advice)


def check_devices(config: RunConfig) -> Iterator[Finding]:
    """Yields the device files that the configuration names."""
    devices = config.actor.devices
    if devices.keyboard:
        try:
            os.close(os.open(devices.keyboard, os.O_RDONLY | os.O_NOCTTY))
            yield Finding(what=devices.keyboard, is_well=True, says="there, for keys")
        except OSError as exc:
            says = f"no keys: {exc.strerror}; start the actor in a terminal or tmux, or set actor.devices.keyboard=''"
            yield Finding(what=devices.keyboard, is_well=False, says=says)
    paths = [devices.path] if devices.path else []
    for path in (*paths, *device_files(config.environment.options)):
        is_well = os.access(path, os.R_OK | os.W_OK)
        advice = "missing: plug it in; `ls /dev/serial/by-id /dev/video*` shows what is there"
        if Path(path).exists():
            advice = "not ours to use: sudo usermod -aG dialout,video,input $USER, then log in again"
        yield Finding(what=path, is_well=is_well, says="there" if is_well else advice)


def device_files(options: object) -> Iterator[str]:
    """Yields every device file in the options of a robot: ports, and OpenCV's cameras by number."""
    if isinstance(options, dict):
        number = options.get("index_or_path")
        if options.get("type") == "opencv" and isinstance(number, int):
            yield f"/dev/video{number}"
        for value in options.values():
            yield from device_files(value)
    elif isinstance(options, str) and options.startswith("/dev/"):
        yield options


def check_console(config: RunConfig) -> Iterator[Finding]:
    """Yields whether the operator console can be served."""
    console = config.actor.console
    if not console.enabled or console.port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((console.bind, console.port))
            yield Finding(what=f"console {console.bind}:{console.port}", is_well=True, says="free")
        except OSError as exc:
            says = f"{exc.strerror}; another actor may have it: set actor.console.port"
            yield Finding(what=f"console {console.bind}:{console.port}", is_well=False, says=says)


def check_arms(config: RunConfig) -> Iterator[Finding]:
    """Yields whether the controllers of an X-Trainer take commands and send feedback; commands nothing."""
    if config.environment.name != "dobot_pnp":
        return
    options = read_dobot_options(config.environment.options)
    for side, arm in (("left", options.left), ("right", options.right)):
        for port, use in ((arm.dashboard_port, "commands"), (arm.feedback_port, "feedback")):
            what = f"{side} arm {arm.host}:{port}"
            try:
                socket.create_connection((arm.host, port), timeout=ARM_S).close()
                yield Finding(what=what, is_well=True, says=f"answers, for {use}")
            except OSError as exc:
                says = (
                    f"no {use}: {exc}; switch the arm on, set it to TCP/IP mode, check the cable and "
                    f"environment.options.{side}.host"
                )
                yield Finding(what=what, is_well=False, says=says)


def check_cameras(config: RunConfig) -> Iterator[Finding]:
    """Yields a picture of every configured camera of a real robot."""
    for name, settings in cameras_of(config).items():
        try:
            with closing(open_camera(name, settings)) as camera:
                height, width, _ = camera.wait(PICTURES_S).shape
                yield Finding(what=name, is_well=True, says=f"{width}x{height}")
        except HiorsError as exc:
            yield Finding(what=name, is_well=False, says=str(exc))


def cameras_of(config: RunConfig) -> dict[str, CameraConfig]:
    """Returns the cameras that a real robot has; simulators draw their pictures themselves."""
    if config.environment.name == "dobot_pnp":
        return read_dobot_options(config.environment.options).cameras
    if config.environment.name == "lerobot":
        described = read_lerobot_options(config.environment).robot.get("cameras", {})
        return {name: CameraConfig(kind="lerobot", options=settings) for name, settings in described.items()}
    return {}


CHECKS = (
    check_versions, check_ports, check_clock, check_disk, check_keys, check_gpu, check_devices, check_arms,
    check_cameras, check_console,
)  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _oversleep(seconds: float) -> float:
    began_s = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began_s - seconds


def main() -> int:
    """Prints one line per finding; returns 1 where something is wrong."""
    config = load(sys.argv[1:])
    num_wrong = 0
    for check in CHECKS:
        for finding in check(config):
            num_wrong += not finding.is_well
            sys.stdout.write(f"{'ok   ' if finding.is_well else 'WRONG'} {finding.what:<24} {finding.says}\n")
    sys.stdout.write(f"{num_wrong} things to put right.\n" if num_wrong else "All well.\n")
    return int(num_wrong > 0)


if __name__ == "__main__":
    run_main(main)
