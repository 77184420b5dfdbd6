"""No pickle on any socket or in any file we read: it runs code of whoever wrote it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("actor", "learner", "robot_infra", "serl_launcher", "tools")
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PEERS = {"tools/bench_serving/lerobot_peer.py", "tools/bench_transport/peers/lz4_pickle.py"}
"""Other systems' protocols, spoken to their own processes on loopback to measure them; they write pickles, and read
arrays through a restricted unpickler."""


def unsafe_lines(source: str) -> list[str]:
    """Returns what could run foreign code: imports of pickle's family, and loaders that fall back to it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            called, keywords = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
            if called == "torch.load" and keywords.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            if keywords.get("allow_pickle", "False") != "False":
                found.append(f"{called} with allow_pickle")
    return found


def test_no_module_of_ours_can_unpickle() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): unsafe_lines(path.read_text()) for path in files}
    assert len(files) > 100
    assert {path for path, lines in found.items() if lines} == PEERS


@pytest.mark.parametrize("peer", sorted(PEERS))
def test_what_imitates_a_peer_reads_no_pickle_without_restriction(peer: str) -> None:
    tree = ast.parse((ROOT / peer).read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"pickle.loads", "pickle.load", "pickle.Unpickler"}
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "pickle" not in {node.module for node in imported}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases):
            assert "find_class" in {each.name for each in node.body if isinstance(each, ast.FunctionDef)}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from dill import loads", "torch.load(path)", "torch.load(path, weights_only=False)",
     "np.load(path, allow_pickle=True)"],
)  # fmt: skip
def test_every_way_to_unpickle_is_seen(source: str) -> None:
    assert unsafe_lines(source)


@pytest.mark.parametrize("source", ["torch.load(path, weights_only=True)", "np.load(path)", "import msgspec"])
def test_safe_readers_are_let_through(source: str) -> None:
    assert not unsafe_lines(source)
