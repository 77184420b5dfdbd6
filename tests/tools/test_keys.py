import stat

import pytest

from serl_launcher.errors import ConfigError
from tools import keys


def test_keys_are_made_listed_and_removed(tmp_path, capsys):
    directory = ["--dir", str(tmp_path / "keys")]
    for command in (["init"], ["add", "arm-1"], ["add", "arm-2"], ["remove", "arm-1"], ["list"]):
        assert keys.main([*command, *directory]) == 0
    assert capsys.readouterr().out == "arm-2\n"


def test_secrets_are_readable_by_their_owner_only(tmp_path):
    keys.init(tmp_path)
    keys.add(tmp_path, "arm")
    for secret in tmp_path.rglob("*.secret"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(list(tmp_path.rglob("*.secret"))) == 2


def test_the_keys_of_a_learner_are_never_overwritten(tmp_path):
    keys.init(tmp_path)
    before = (tmp_path / "learner.secret").read_bytes()
    assert keys.main(["init", "--dir", str(tmp_path)]) == 1
    assert (tmp_path / "learner.secret").read_bytes() == before


@pytest.mark.parametrize("name", ["", "../arm", "a/b", ".hidden"])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    keys.init(tmp_path)
    with pytest.raises(ConfigError, match="robot name"):
        keys.add(tmp_path, name)


def test_taken_and_unknown_names_are_refused(tmp_path):
    keys.init(tmp_path)
    keys.add(tmp_path, "arm")
    with pytest.raises(ConfigError, match="already"):
        keys.add(tmp_path, "arm")
    with pytest.raises(ConfigError, match=r"Expected one of \['arm'\]"):
        keys.remove(tmp_path, "leg")
