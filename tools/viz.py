"""Recorded episodes in the rerun viewer: `python -m tools.viz <dataset> --episode N --output episode.rrd`.

`--mode local` writes a file for `rerun episode.rrd` (default). `--mode live` opens the viewer on this machine.
`--mode distant --port P` serves a viewer elsewhere: `rerun rerun+http://<this machine>:P/proxy`. With `--follow`, live
and distant go on with every episode that the run records from now on. Needs rerun-sdk.
"""

import argparse
import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from learner.replay.reader import ReplayDataset
from serl_launcher.config.loader import run_main
from serl_launcher.errors import ConfigError
from serl_launcher.images import JPEG_MAGIC
from serl_launcher.types import Source
from tools.inspect_episodes import open_dataset, steps_of

if TYPE_CHECKING:
    from rerun import RecordingStream


FOLLOW_S = 1.0


def log_episode(dataset: ReplayDataset, episode: int, recording: "RecordingStream", *, below: str = "") -> int:
    """Logs pictures (as they are stored), states, actions and source of every step, below a path; returns how many."""
    import rerun as rr

    steps = steps_of(dataset, episode)
    names = dataset.spec.action_names if dataset.spec else ()
    for number, step in enumerate(steps):
        rr.set_time("time", duration=number / dataset.control_hz, recording=recording)
        for camera in dataset.image_shapes:
            encoded = bytes(dataset.encoded_image(step, camera))
            kind = "image/jpeg" if encoded.startswith(JPEG_MAGIC) else "image/png"
            rr.log(f"{below}cameras/{camera}", rr.EncodedImage(contents=encoded, media_type=kind), recording=recording)
        for index, value in enumerate(dataset.steps.action[step].tolist()):
            name = names[index] if index < len(names) else str(index)
            rr.log(f"{below}action/{name}", rr.Scalars(value), recording=recording)
        for index, value in enumerate(dataset.steps.state[step].tolist()):
            rr.log(f"{below}state/{index}", rr.Scalars(value), recording=recording)
        is_person = dataset.steps.source[step] == int(Source.HUMAN)
        rr.log(f"{below}person", rr.Scalars(float(is_person)), recording=recording)
    return len(steps)


def follow(dataset: ReplayDataset, episode: int, recording: "RecordingStream") -> None:
    """Logs that episode and every one that is recorded afterwards, each below a path of its own; until Ctrl-C."""
    while True:
        while episode < dataset.num_episodes:
            num_steps = log_episode(dataset, episode, recording, below=f"episode_{episode:04d}/")
            _tell(f"{num_steps} steps of episode {episode}")
            episode += 1
        time.sleep(FOLLOW_S)
        dataset.refresh()


def show(dataset: ReplayDataset, episode: int, recording: "RecordingStream", *, follows: bool) -> None:
    """Gives a viewer one episode and waits for Ctrl-C, or also what is recorded meanwhile."""
    if follows:
        follow(dataset, episode, recording)
    _tell(f"{log_episode(dataset, episode, recording)} steps of episode {episode}; Ctrl-C ends.")
    while True:
        time.sleep(FOLLOW_S)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.viz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="a dataset, the directory of a run, or a name below HF_LEROBOT_HOME")
    parser.add_argument("--episode", type=int, default=0)
    parser.add_argument("--mode", choices=("local", "live", "distant"), default="local")
    parser.add_argument("--output", type=Path, default=Path("episode.rrd"), help="the file, for --mode local")
    parser.add_argument("--port", type=int, default=9876, help="of the server, for --mode distant")
    parser.add_argument("--follow", action="store_true", help="go on with what is recorded from now on")
    chosen = parser.parse_args(sys.argv[1:])
    try:
        import rerun as rr
    except ImportError as exc:
        raise ConfigError("The viewer needs rerun: pip install rerun-sdk.") from exc
    if chosen.follow and chosen.mode == "local":
        raise ConfigError("--follow needs a viewer that is open: --mode live, or --mode distant.")
    dataset = open_dataset(chosen.dataset)
    steps_of(dataset, chosen.episode)
    recording = rr.RecordingStream(f"hiors_{dataset.root.name}")
    if chosen.mode == "local":
        recording.save(str(chosen.output))
        num_steps = log_episode(dataset, chosen.episode, recording)
        recording.flush()
        _tell(f"{num_steps} steps of episode {chosen.episode}: {chosen.output}; open it with: rerun {chosen.output}")
        return
    if chosen.mode == "live":
        recording.spawn()
    else:
        _tell(f"Serving at {recording.serve_grpc(grpc_port=chosen.port)}")
        _tell(f"Elsewhere: rerun rerun+http://{socket.gethostname()}:{chosen.port}/proxy")
    with contextlib.suppress(KeyboardInterrupt):
        show(dataset, chosen.episode, recording, follows=chosen.follow)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_main(main)
