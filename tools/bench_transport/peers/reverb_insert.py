"""dm-reverb: items of two steps that share their chunks, written by a trajectory writer.

A script, not a module of hiors; it runs in an environment of its own. `serve`, or `send PORT FRAMES START SECONDS`.
"""

import json
import sys
import time

import numpy as np
import reverb  # pyright: ignore[reportMissingImports] - Installed in an environment of its own.

TABLE = "replay"


def serve() -> None:
    """Serves until standard input closes."""
    table = reverb.Table(
        name=TABLE, sampler=reverb.selectors.Uniform(), remover=reverb.selectors.Fifo(), max_size=500,
        rate_limiter=reverb.rate_limiters.MinSize(1),
    )  # fmt: skip
    server = reverb.Server([table], port=None)
    sys.stdout.write(json.dumps(server.port) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


def send(port: int, frames: np.ndarray, start_at_s: float, seconds: float) -> None:
    """Inserts for a while; prints steps, seconds and the time of each insert that waits for the server."""
    client = reverb.Client(f"127.0.0.1:{port}")
    latencies = []
    time.sleep(max(0.0, start_at_s - time.monotonic()))
    began = time.monotonic()
    with client.trajectory_writer(num_keep_alive_refs=2) as writer:
        while time.monotonic() < began + seconds:
            asked = time.monotonic()
            seen = frames[len(latencies) % len(frames)]
            step = {f"cam_{number}": image for number, image in enumerate(seen)}
            step |= {"state": np.zeros(14, np.float32), "action": np.zeros((50, 14), np.float32)}
            writer.append(step)
            if latencies:
                item = {name: column[-2:] for name, column in writer.history.items()}
                writer.create_item(TABLE, priority=1.0, trajectory=item)
            writer.flush(block_until_num_items=8)
            latencies.append(time.monotonic() - asked)
        writer.flush()
    percentiles = [1e3 * float(np.percentile(latencies, percent)) for percent in (50, 99)]
    found = {"steps": len(latencies), "seconds": time.monotonic() - began, "latencies_ms": percentiles}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        send(int(sys.argv[2]), np.load(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
