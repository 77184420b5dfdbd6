"""Where the learner is: a host, or a file that says so and may change while the actor runs.

    ip=192.168.1.7                      an address
    ip=gpu-machine.local                a name, resolved anew for each connection
    ip=file:/shared/run/learner         a file with one line: `<host>`, or `<host> <request port> <broadcast port>`

A file suits learners that a cluster starts on another machine each time.
"""

import dataclasses
from pathlib import Path

from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import TransportError

_FILE = "file:"


def locate(address: str, config: TransportConfig) -> tuple[str, TransportConfig]:
    """Returns the host to connect to now, and the settings with the ports that hold there.

    Raises:
        TransportError: The file cannot be read, or does not say one host and two ports.
    """
    if not address.startswith(_FILE):
        return address, config
    path = Path(address.removeprefix(_FILE))
    try:
        words = path.read_text().split()
    except (OSError, UnicodeDecodeError) as exc:
        raise TransportError(
            f"Expected the address of the learner in {path}: {exc}. The actor looks again every second."
        ) from exc
    if len(words) == 1:
        return words[0], config
    if len(words) != 3 or not all(word.isdecimal() and 0 < int(word) < 2**16 for word in words[1:]):
        raise TransportError(
            f"Expected `<host>` or `<host> <request port> <broadcast port>` in {path}, got {' '.join(words)[:200]!r}."
        )
    ports = {"request_port": int(words[1]), "broadcast_port": int(words[2])}
    return words[0], dataclasses.replace(config, **ports)
