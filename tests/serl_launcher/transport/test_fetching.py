"""What travels when a policy is fetched, against the learner's own reader of publications."""

from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from learner.server.publications import Publications
from serl_launcher.errors import PolicyError, ProtocolError
from serl_launcher.publication import Publisher, verify
from serl_launcher.transport.fetching import fetch
from serl_launcher.transport.messages import Fetch

PIECE = 10_000
BACKBONE = np.random.default_rng(0).normal(size=(400, 100)).astype(np.float32)


def publish(root: Path, version: int, head: float) -> Path:
    def write(path: Path) -> None:
        tensors = {"backbone": BACKBONE, "head": np.full((10, 10), head, np.float32), "zeros": np.zeros(3, np.float32)}
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text(f'{{"head": {head}}}')

    return Publisher(root / "policies").publish(write, version).path


class Wire:
    """Serves pieces as the gateway does, and counts; breaks after `limit` bytes."""

    def __init__(self, root: Path, version: int, limit: int = 10**9) -> None:
        self._publications = Publications(root / "policies")
        self._version = version
        self._limit = limit
        self.num_bytes = 0

    def __call__(self, file: str, offset: int, size: int) -> "Future[tuple[bytes, int]]":
        future: Future[tuple[bytes, int]] = Future()
        if self.num_bytes >= self._limit:
            future.set_exception(PolicyError("cut off"))
            return future
        reply, piece = self._publications.read(Fetch(1, self._version, file, offset, size))
        if file == "model.safetensors":
            self.num_bytes += len(piece)
        future.set_result((piece, reply.total_bytes))
        return future


def test_only_changed_tensors_travel(tmp_path: Path) -> None:
    published = [publish(tmp_path, version, head=float(version)) for version in (1, 2)]
    first, second = Wire(tmp_path, 1), Wire(tmp_path, 2)
    fetch(first, 1, tmp_path / "cache" / "1", piece_bytes=PIECE)
    fetched = fetch(second, 2, tmp_path / "cache" / "2", piece_bytes=PIECE)
    assert first.num_bytes > BACKBONE.nbytes
    assert second.num_bytes == 400
    assert verify(fetched).digest == verify(published[1]).digest


def test_a_damaged_tensor_at_hand_is_fetched_again(tmp_path: Path) -> None:
    published = [publish(tmp_path, version, head=float(version)) for version in (1, 2)]
    at_hand = fetch(Wire(tmp_path, 1), 1, tmp_path / "cache" / "1", piece_bytes=PIECE)
    content = bytearray((at_hand / "model.safetensors").read_bytes())
    content[1000] ^= 1
    (at_hand / "model.safetensors").write_bytes(bytes(content))
    wire = Wire(tmp_path, 2)
    fetched = fetch(wire, 2, tmp_path / "cache" / "2", piece_bytes=PIECE)
    assert wire.num_bytes == BACKBONE.nbytes + 400
    assert verify(fetched).digest == verify(published[1]).digest


def test_a_publication_that_is_deleted_meanwhile_is_done_without(tmp_path: Path) -> None:
    for version in (1, 2):
        publish(tmp_path, version, head=float(version))
    at_hand = fetch(Wire(tmp_path, 1), 1, tmp_path / "cache" / "1", piece_bytes=PIECE)
    (at_hand / "model.safetensors").unlink()
    fetched = fetch(Wire(tmp_path, 2), 2, tmp_path / "cache" / "2", piece_bytes=PIECE)
    assert verify(fetched).version == 2


@pytest.mark.parametrize("limit", [1, 5_000, 60_000, 155_000])
def test_a_cut_off_fetch_goes_on_and_fetches_no_byte_twice(tmp_path: Path, limit: int) -> None:
    published = publish(tmp_path, 1, head=1.0)
    cut_off, rest = Wire(tmp_path, 1, limit), Wire(tmp_path, 1)
    with pytest.raises(PolicyError, match="cut off"):
        fetch(cut_off, 1, tmp_path / "cache" / "1", piece_bytes=PIECE)
    fetched = fetch(rest, 1, tmp_path / "cache" / "1", piece_bytes=PIECE)
    assert verify(fetched).digest == verify(published).digest
    size = (published / "model.safetensors").stat().st_size
    assert cut_off.num_bytes + rest.num_bytes <= size + 4 * PIECE


def test_a_manifest_longer_than_one_piece_is_fetched_whole(tmp_path: Path) -> None:
    published = publish(tmp_path, 1, head=1.0)
    fetched = fetch(Wire(tmp_path, 1), 1, tmp_path / "cache" / "1", piece_bytes=50)
    assert verify(fetched).digest == verify(published).digest


@pytest.mark.parametrize("blocks", ["[[5, 3, 'x']]", "[[0, 1, 'x']]", "[[0, 0, 'x']]"])
def test_blocks_that_do_not_fill_their_file_are_refused(tmp_path: Path, blocks: str) -> None:
    published = publish(tmp_path, 1, head=1.0)
    manifest = (
        '{"version": 1, "files": {"config.json": {"size": 13, "sha256": "y", "blocks": '
        + blocks.replace("'", '"')
        + "}}}"
    )
    (published / "manifest.json").write_text(manifest)
    with pytest.raises(ProtocolError, match="blocks"):
        fetch(Wire(tmp_path, 1), 1, tmp_path / "cache" / "1", piece_bytes=PIECE)
