"""What it costs to record a step and to finish an episode: hiors, and LeRobotDataset in its image and video forms."""

from pathlib import Path

import numpy as np

from actor.spool import Spool
from learner.server.ingest import Ingest, StepBatch
from learner.server.sealing import Sealer
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeEnded, EpisodeStarted, encode_observation
from serl_launcher.journal import Journal
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome
from tools.bench_results import Result
from tools.bench_workload import NUM_JOINTS, PROMPT, encode_step, measure, observe

EVENTS_AT_ONCE = 16


def record_ours(root: Path, frames: np.ndarray, spec: RobotSpec, *, num_episodes: int, num_steps: int) -> list[Result]:
    """Records episodes from pictures to sealed files: encode, spool, journal, dataset. The network is left out."""
    spool = Spool(root / "spool", max_bytes=2**33)
    journal = Journal(root / "journal")
    ingest = Ingest(journal)
    ingest.admit(_hello(spool, spec))
    sealer = Sealer(journal, DatasetWriter(root / "dataset", spec))
    try:
        taking, sealing = [], []
        for episode in range(num_episodes):
            taking.append(measure(lambda n=episode: _take_episode(spool, ingest, frames, spec, n, num_steps)))
            sealing.append(measure(sealer.run_once))
    finally:
        journal.close()
        spool.close()
    num_bytes = _size_of(root / "dataset")
    steps_recorded = (num_episodes - 1) * num_steps
    cpu = sum(each.cpu_s for each in [*taking[1:], *sealing[1:]])
    return [
        Result("record/ours/cpu", 1e3 * cpu / steps_recorded, "ms/step", at_most=2.0),
        Result("record/ours/size", num_bytes / (num_episodes * num_steps) / 1e6, "MB/step", at_most=0.1),
        Result(
            f"seal/ours/{num_steps} steps", float(np.median([each.wall_s for each in sealing[1:]])), "s", at_most=0.1
        ),
        Result(f"seal/ours/{num_steps} steps cpu", float(np.median([each.cpu_s for each in sealing[1:]])), "s"),
    ]


def record_lerobot(
    root: Path, frames: np.ndarray, spec: RobotSpec, *, form: str, num_episodes: int, num_steps: int
) -> list[Result]:
    """Records with `LeRobotDataset`; `form` is `image`, `video` or `streaming` (video encoded while recording)."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset.create(
        repo_id=f"bench/{form}",
        fps=int(spec.control_hz),
        features=_lerobot_features(spec, "image" if form == "image" else "video"),
        root=root,
        use_videos=form != "image",
        streaming_encoding=form == "streaming",
    )
    adding, saving = [], []
    for _ in range(num_episodes):
        adding.append(measure(lambda: _add_frames(dataset, frames, spec, num_steps)))
        saving.append(measure(dataset.save_episode))
    dataset.finalize()
    measured = slice(1, None) if num_episodes > 1 else slice(None)
    cpu = sum(each.cpu_s for each in [*adding[measured], *saving[measured]])
    count = len(adding[measured]) * num_steps
    return [
        Result(f"record/lerobot {form}/cpu", 1e3 * cpu / count, "ms/step"),
        Result(f"record/lerobot {form}/size", _size_of(root) / (num_episodes * num_steps) / 1e6, "MB/step"),
        Result(f"seal/lerobot {form}/{num_steps} steps", float(np.median([c.wall_s for c in saving[measured]])), "s"),
    ]


def _take_episode(
    spool: Spool, ingest: Ingest, frames: np.ndarray, spec: RobotSpec, number: int, num_steps: int
) -> None:
    """Does what actor and server do with an episode, up to the commit."""
    episode_id = f"bench-{spool.epoch}-{number}"
    spool.append(EpisodeStarted(episode_id, PROMPT, 0.0))
    for step in range(num_steps):
        spool.append(encode_step(encode_observation(observe(frames, step, spec), spec), episode_id, step))
        if step % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1:
            _deliver(spool, ingest)
    final = encode_observation(observe(frames, num_steps, spec), spec)
    spool.append(EpisodeEnded(episode_id, num_steps, final, Outcome.SUCCESS, "script", 0.0))
    _deliver(spool, ingest)


def _deliver(spool: Spool, ingest: Ingest) -> None:
    events = spool.pending(spool.acknowledged_seq, 1000, 2**30)
    batch = StepBatch(
        actor_id="bench", epoch=spool.epoch, spool_id=spool.spool_id, first_seq=events[0][0],
        events=tuple(encoded for _, encoded in events),
    )  # fmt: skip
    (committed,) = ingest.commit([batch])
    if committed.error is not None:
        raise committed.error
    spool.acknowledge(committed.last_seq)


def _hello(spool: Spool, spec: RobotSpec) -> Hello:
    return Hello(
        actor_id="bench", epoch=spool.epoch, spec_digest=spec.digest(), spec=spec, spool_id=spool.spool_id, first_seq=0
    )


def _add_frames(dataset: object, frames: np.ndarray, spec: RobotSpec, num_steps: int) -> None:
    for step in range(num_steps):
        seen = observe(frames, step, spec)
        frame: dict[str, object] = {f"observation.images.{name}": image for name, image in seen.images.items()}
        frame |= {"observation.state": seen.state, "action": np.cos(0.02 * step + np.arange(NUM_JOINTS, dtype="f4"))}
        frame["task"] = PROMPT
        dataset.add_frame(frame)  # pyright: ignore[reportAttributeAccessIssue] - LeRobot is imported late.


def _lerobot_features(spec: RobotSpec, dtype: str) -> dict[str, dict]:
    names = ["height", "width", "channels"]
    features: dict[str, dict] = {
        f"observation.images.{camera.name}": {"dtype": dtype, "shape": camera.shape, "names": names}
        for camera in spec.cameras
    }
    features["observation.state"] = {"dtype": "float32", "shape": (NUM_JOINTS,), "names": list(spec.state_names)}
    features["action"] = {"dtype": "float32", "shape": (NUM_JOINTS,), "names": list(spec.action_names)}
    return features


def _size_of(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
