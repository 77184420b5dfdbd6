from pathlib import Path

import pytest

from serl_launcher import files


def test_the_names_of_new_directories_are_forced_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    with files.StagedFiles() as staged:
        staged.write(tmp_path / "data" / "chunk-000" / "file-000.parquet", b"steps")
        assert synced == [tmp_path, tmp_path / "data"]
        staged.write(tmp_path / "data" / "chunk-000" / "file-001.parquet", b"steps")
        assert len(synced) == 2
        staged.write(tmp_path / "data" / "chunk-001" / "file-000.parquet", b"steps")
        assert synced[2:] == [tmp_path / "data"]
