import shutil

from learner.replay.reader import ReplayDataset
from learner.trainer.same_data import digest_of
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.learner.conftest import SPEC


def test_a_copy_is_the_same_and_another_label_or_episode_is_not(run, tmp_path):
    run.record(*[Outcome.SUCCESS] * 2, root=run.demonstrations)
    known = digest_of(ReplayDataset(run.demonstrations))
    copy = shutil.copytree(run.demonstrations, tmp_path / "copy")
    assert digest_of(ReplayDataset(copy)) == known
    DatasetWriter(copy, SPEC).relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.FAILURE, "human", 1.0))
    relabelled = digest_of(ReplayDataset(copy))
    run.record(Outcome.SUCCESS, first=2, root=run.demonstrations)
    assert len({known, relabelled, digest_of(ReplayDataset(run.demonstrations))}) == 3
