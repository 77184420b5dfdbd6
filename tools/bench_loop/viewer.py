"""Somebody looks at the console: `python -m tools.bench_loop.viewer ADDRESS`, until standard input closes.

Prints how many pictures came.
"""

import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def main(address: str) -> None:
    """Takes every picture and state that the console sends."""
    count = 0
    with connect(address, max_size=None) as socket:
        threading.Thread(target=lambda: (sys.stdin.read(), socket.close()), daemon=True).start()
        try:
            for message in socket:
                count += isinstance(message, bytes)
        except ConnectionClosed:
            pass
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main(sys.argv[1])
