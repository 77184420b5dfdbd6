import importlib.util
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PEER = Path(__file__).parents[2] / "tools/bench_transport/peers/lz4_pickle.py"


@pytest.fixture(name="peer", scope="module")
def fixture_peer() -> ModuleType:
    """The script, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("lz4_pickle_peer", PEER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pickling_peer_reads_transitions(peer: ModuleType) -> None:
    frames = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
    sent = peer.transition(frames, 1)
    got = peer.load(pickle.dumps(sent))
    assert np.array_equal(got["next_observations"]["cam_2"], frames[0, 2])
    assert got["dones"] is False


def test_the_pickling_peer_runs_nothing_that_comes_to_its_port(peer: ModuleType) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        peer.load(pickle.dumps(print))
