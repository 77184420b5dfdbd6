"""What a robot still executes travels with its question (real-time chunking)."""

import numpy as np
import pytest

from serl_launcher.errors import ProtocolError
from serl_launcher.transport import act_frames, messages
from serl_launcher.transport.messages import Act, UnfinishedHeader
from serl_launcher.types import Unfinished
from tests import transport_rig as rig


def request_and_frames(unfinished):
    headers, rest = act_frames.encode_unfinished(unfinished)
    frames = [frame for _ in unfinished for frame in act_frames.encode_observation_frames(rig.encoded(1.0))]
    return Act(1, 100.0, len(unfinished), headers), [*frames, rest]


def test_unfinished_actions_come_back_per_lane():
    sent = [Unfinished(actions=np.arange(6, dtype=np.float32).reshape(3, 2), delay_ticks=2), None]
    request, frames = request_and_frames(sent)
    decoded = messages.decode_request(messages.encode(request))
    observations, got = act_frames.decode_act(decoded, frames, 2)
    assert len(observations) == 2
    np.testing.assert_array_equal(got[0].actions, sent[0].actions)
    assert (got[0].delay_ticks, got[1]) == (2, None)


def test_a_question_without_them_is_as_it_was():
    header = messages.encode(Act(1, 100.0, 1))
    assert b"unfinished" not in header
    observations, unfinished = act_frames.decode_act(
        messages.decode_request(header), act_frames.encode_observation_frames(rig.encoded(1.0)), 2
    )
    assert (len(observations), unfinished) == (1, [])


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ((UnfinishedHeader(3, 1),), bytes(16)),
        ((UnfinishedHeader(1, 1), UnfinishedHeader(1, 1)), bytes(16)),
        ((UnfinishedHeader(1, 1),), np.array([np.nan, 0], "<f4").tobytes()),
    ],
)
def test_headers_that_do_not_fit_the_frame_are_refused(headers, rest):
    frames = act_frames.encode_observation_frames(rig.encoded(1.0))
    with pytest.raises(ProtocolError):
        act_frames.decode_act(Act(1, 100.0, 1, headers), [*frames, rest], 2)
    with pytest.raises(ProtocolError):
        act_frames.decode_act(Act(1, 100.0, 1, headers), frames, 2)


def test_they_reach_the_inference_of_a_learner(tmp_path):
    rest = Unfinished(actions=np.ones((3, 2), np.float32), delay_ticks=1)
    with rig.learner(tmp_path) as learner, rig.spool(tmp_path) as spool, rig.client(learner.config, spool) as client:
        [chunk] = client.act_async([rig.observation(2.0)], timeout_s=10.0, unfinished=[rest]).result(15.0)
        [got] = learner.inference.unfinished
    np.testing.assert_array_equal(got.actions, rest.actions)
    assert got.delay_ticks == 1
    assert chunk.actions[0, 0] == 2.0
