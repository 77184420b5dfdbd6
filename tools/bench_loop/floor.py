"""What the machine allows: `python -m tools.bench_loop.floor HZ` sleeps to the end of each tick and does nothing else.

Prints how late it woke up, in milliseconds, as a JSON list, when standard input closes.
"""

import json
import sys
import threading

from robot_infra.clock import TickClock


def main(hz: float) -> None:
    """Sleeps tick by tick until standard input closes."""
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    clock = TickClock(1 / hz)
    clock.start()
    while not stop.is_set():
        clock.wait()
    json.dump([round(1e3 * late_s, 3) for late_s in clock.lateness_s], sys.stdout)


if __name__ == "__main__":
    main(float(sys.argv[1]))
