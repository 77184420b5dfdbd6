import json
import mmap
from contextlib import closing
from pathlib import Path

import pytest

from serl_launcher.errors import CheckpointError
from serl_launcher.files import sha256_of
from serl_launcher.publication import Publisher, latest, read_manifest, take_spare, verify


def write_weights(content: bytes):
    def write(directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(content)
        (directory / "nested").mkdir()
        (directory / "nested" / "config.json").write_text("{}")

    return write


def test_nothing_is_published_at_first(tmp_path):
    assert latest(tmp_path) is None


def test_the_published_version_is_the_latest_and_verifies(tmp_path):
    published = Publisher(tmp_path).publish(write_weights(b"weights"), 50)
    assert latest(tmp_path) == published == verify(published.path)
    assert published.path.name == "00000050"


def test_the_manifest_lists_size_and_checksum_of_every_file(tmp_path):
    path = Publisher(tmp_path).publish(write_weights(b"weights"), 7).path
    manifest = read_manifest(path)
    assert set(manifest.files) == {"model.safetensors", "nested/config.json"}
    assert manifest.version == 7
    assert manifest.files["model.safetensors"].size == len(b"weights")
    assert manifest.files["model.safetensors"].sha256 == sha256_of(path / "model.safetensors")


def test_only_the_newest_three_are_kept(tmp_path):
    publisher = Publisher(tmp_path)
    for version in range(5):
        publisher.publish(write_weights(b"%d" % version), version)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000003", "00000004", "LATEST"]


def write_large(content: bytes):
    def write(directory: Path) -> None:
        path = directory / "model.safetensors"
        take_spare(path)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(content)
            file.truncate()

    return write


@pytest.fixture
def small_spares(monkeypatch):
    monkeypatch.setattr("serl_launcher.publication._LEAST_SPARE_BYTES", 4)


def test_the_file_of_a_deleted_version_becomes_that_of_the_next(tmp_path, small_spares):
    publisher = Publisher(tmp_path, keep=2)
    first = publisher.publish(write_large(b"first"), 1).path / "model.safetensors"
    number = first.stat().st_ino
    for version in (2, 3):
        publisher.publish(write_large(b"version %d" % version), version)
    assert not first.exists()
    published = publisher.publish(write_large(b"4th"), 4)
    assert (published.path / "model.safetensors").stat().st_ino == number
    assert (published.path / "model.safetensors").read_bytes() == b"4th"
    assert set(read_manifest(published.path).files) == {"model.safetensors"}


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_file_that_somebody_still_reads_is_never_written_over(tmp_path, small_spares, how):
    publisher = Publisher(tmp_path, keep=1)
    path = publisher.publish(write_large(b"first"), 1).path / "model.safetensors"
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with closing(mapped if how == "mapped" else path.open("rb")) as reader:
        if how == "open":
            mapped.close()
        for version in (2, 3, 4):
            publisher.publish(write_large(b"other"), version)
        assert reader.read() == b"first"


def test_a_spare_file_that_is_not_wanted_is_no_part_of_the_next_version(tmp_path, small_spares):
    publisher = Publisher(tmp_path, keep=1)
    publisher.publish(write_large(b"first"), 1)
    publisher.publish(write_large(b"second"), 2)
    published = publisher.publish(write_weights(b"third"), 3)
    assert set(read_manifest(published.path).files) == {"model.safetensors", "nested/config.json"}
    assert (published.path / "model.safetensors").read_bytes() == b"third"


def test_a_version_is_never_published_again(tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(write_weights(b"first"), 3)
    with pytest.raises(CheckpointError, match="above 3"):
        publisher.publish(write_weights(b"second"), 3)


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail(directory: Path) -> None:
        (directory / "half").write_bytes(b"x")
        raise OSError("disk full")

    publisher = Publisher(tmp_path)
    publisher.publish(write_weights(b"good"), 1)
    with pytest.raises(OSError, match="disk full"):
        publisher.publish(fail, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "LATEST"]


def test_what_a_killed_publisher_left_is_cleared(tmp_path):
    (tmp_path / ".tmp-9-123").mkdir()
    Publisher(tmp_path)
    assert not (tmp_path / ".tmp-9-123").exists()


def test_a_directory_that_latest_does_not_name_yet_is_published_again(tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(write_weights(b"one"), 1)
    latest_file = (tmp_path / "LATEST").read_bytes()
    publisher.publish(write_weights(b"two"), 2)
    (tmp_path / "LATEST").write_bytes(latest_file)
    assert publisher.publish(write_weights(b"two again"), 2).version == 2


@pytest.mark.parametrize("damage", [b"", b"weightz"])
def test_damaged_weights_are_found(tmp_path, damage):
    path = Publisher(tmp_path).publish(write_weights(b"weights"), 1).path
    (path / "model.safetensors").write_bytes(damage)
    with pytest.raises(CheckpointError, match="not what the manifest says"):
        verify(path)


def test_a_missing_file_is_named(tmp_path):
    path = Publisher(tmp_path).publish(write_weights(b"weights"), 1).path
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 'model.safetensors'"):
        verify(path)


def test_a_manifest_with_unknown_fields_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"version": 1, "files": {}, "code": "x"}))
    with pytest.raises(CheckpointError):
        read_manifest(tmp_path)
