import lmdb
import pytest

from learner.server.refusals import StorageRefused, reply_of, storage_refused
from serl_launcher.transport import messages


def test_a_full_disk_is_told_as_such():
    refused = storage_refused(lmdb.DiskError("No space left on device"))
    assert isinstance(refused, StorageRefused)
    assert "No space left" in str(refused)
    assert reply_of(refused).kind == messages.STORAGE


@pytest.mark.parametrize("kind", [lmdb.PanicError, lmdb.CorruptedError])
def test_a_journal_that_cannot_be_used_any_more_ends_the_process(kind):
    with pytest.raises(kind):
        storage_refused(kind("the root page could not be written"))
