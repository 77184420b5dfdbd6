"""Recorded episodes in the rerun viewer: `python -m tools.viz <dataset> --episode N --output episode.rrd`.

`--mode local` writes a file for `rerun episode.rrd` (default). `--mode distant --port P` serves the episode to a viewer
on another machine: `rerun rerun+http://<this machine>:P/proxy`. Needs rerun-sdk.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from learner.replay.reader import ReplayDataset
from serl_launcher.config.loader import run_main
from serl_launcher.datasets.layout import dataset_path
from serl_launcher.errors import ConfigError
from serl_launcher.images import JPEG_MAGIC
from serl_launcher.types import Source
from tools.inspect_episodes import steps_of

if TYPE_CHECKING:
    from rerun import RecordingStream


def log_episode(dataset: ReplayDataset, episode: int, recording: "RecordingStream") -> int:
    """Logs pictures (as they are stored), states, actions, reward and source of every step; returns how many."""
    import rerun as rr

    steps = steps_of(dataset, episode)
    names = dataset.spec.action_names if dataset.spec else ()
    for number, step in enumerate(steps):
        rr.set_time("time", duration=number / dataset.control_hz, recording=recording)
        for camera in dataset.image_shapes:
            encoded = bytes(dataset.encoded_image(step, camera))
            kind = "image/jpeg" if encoded.startswith(JPEG_MAGIC) else "image/png"
            rr.log(f"cameras/{camera}", rr.EncodedImage(contents=encoded, media_type=kind), recording=recording)
        for index, value in enumerate(dataset.steps.action[step].tolist()):
            name = names[index] if index < len(names) else str(index)
            rr.log(f"action/{name}", rr.Scalars(value), recording=recording)
        for index, value in enumerate(dataset.steps.state[step].tolist()):
            rr.log(f"state/{index}", rr.Scalars(value), recording=recording)
        is_person = dataset.steps.source[step] == int(Source.HUMAN)
        rr.log("person", rr.Scalars(float(is_person)), recording=recording)
    return len(steps)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.viz", description=__doc__)
    parser.add_argument("dataset", help="a dataset, or its name below HF_LEROBOT_HOME")
    parser.add_argument("--episode", type=int, default=0)
    parser.add_argument("--mode", choices=("local", "distant"), default="local")
    parser.add_argument("--output", type=Path, default=Path("episode.rrd"))
    parser.add_argument("--port", type=int, default=9876, help="of the server, for --mode distant")
    chosen = parser.parse_args(sys.argv[1:])
    try:
        import rerun as rr
    except ImportError as exc:
        raise ConfigError("The viewer needs rerun: pip install rerun-sdk.") from exc
    dataset = ReplayDataset(dataset_path(chosen.dataset))
    recording = rr.RecordingStream(f"hiors_{dataset.root.name}")
    if chosen.mode == "local":
        recording.save(str(chosen.output))
        num_steps = log_episode(dataset, chosen.episode, recording)
        recording.flush()
        sys.stdout.write(f"{num_steps} steps of episode {chosen.episode}: {chosen.output}\n")
        return
    address = recording.serve_grpc(grpc_port=chosen.port)
    num_steps = log_episode(dataset, chosen.episode, recording)
    sys.stdout.write(f"{num_steps} steps of episode {chosen.episode} at {address}; Ctrl-C ends.\n")
    sys.stdout.flush()
    while True:
        time.sleep(1.0)


if __name__ == "__main__":
    run_main(main)
