"""Finds ports for a learner on this machine, and says who holds the usual ones."""

import contextlib
import socket
from pathlib import Path

from serl_launcher.config.transport import TransportConfig


def choose_ports(usual: TransportConfig) -> tuple[int, int, str]:
    """Returns the request port, the broadcast port and a message where they are not the usual ones."""
    for port in (usual.request_port, usual.broadcast_port):
        if not _is_free(port):
            request, broadcast = free_port(), free_port()
            holder = port_holder(port)
            who = f" by {holder}" if holder else ""
            return request, broadcast, f"Port {port} is in use{who}; this run uses {request} and {broadcast} instead."
    return usual.request_port, usual.broadcast_port, ""


def port_holder(port: int) -> str:
    """Returns `process 123 (python -m learner ...)` for a listening TCP port; empty where that cannot be seen."""
    inodes = _listening_inodes(port)
    for process in Path("/proc").glob("[0-9]*"):
        if inodes & _open_files(process):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            return f"process {process.name} ({command[:80]})"
    return ""


def _open_files(process: Path) -> set[str]:
    names: set[str] = set()
    # Another user's files, or closed meanwhile.
    with contextlib.suppress(OSError):
        for link in list((process / "fd").iterdir()):
            with contextlib.suppress(OSError):
                names.add(str(link.readlink()))
    return names


def _listening_inodes(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            is_listening = fields[3] == "0A"
            if is_listening and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Returns a TCP port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
