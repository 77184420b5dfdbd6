"""A short run of what `make fuzz` does at length."""

import contextlib
import random
import threading
from pathlib import Path

import pytest
import zmq

from serl_launcher.errors import ProtocolError
from serl_launcher.transport import messages
from serl_launcher.transport.messages import Ack, Welcome
from tests.fuzz.__main__ import describe_codec, describe_server, is_codec_clean
from tests.fuzz.codec import fuzz_codec
from tests.fuzz.mutations import Frames, Mutator, valid_replies
from tests.fuzz.server import fuzz_server
from tests.transport_rig import client, episode, learner, spool, wait_until


def test_every_decoder_gives_a_message_or_a_protocol_error() -> None:
    report = fuzz_codec(5000, seed=7)
    assert is_codec_clean(report), describe_codec(report)
    assert report.num_refused > report.num_messages


@pytest.mark.timeout(600)
def test_a_live_learner_serves_a_good_actor_meanwhile(tmp_path: Path) -> None:
    report = fuzz_server(tmp_path, 3000, seed=7, calm_s=1.0)
    assert report.is_clean, describe_server(report)
    assert report.num_steps > 0


def test_an_actor_survives_a_learner_that_talks_nonsense(tmp_path: Path) -> None:
    with learner(tmp_path) as server:
        config = server.config
    stop = threading.Event()
    nonsense = threading.Thread(target=talk_nonsense, args=(config.request_port, config.broadcast_port, stop))
    with spool(tmp_path) as source, client(config, source) as actor:
        nonsense.start()
        for event in episode("e-0", 30):
            source.append(event)
        assert wait_until(lambda: actor.last_error is not None)
        stop.set()
        nonsense.join()
        with learner(tmp_path, config) as server:
            assert actor.flush(30)
            assert server.journal.counts().num_steps == 30


def is_believed(frames: Frames) -> bool:
    """Whether a reply claims to have committed events: who has the learner's key is believed, and must be."""
    with contextlib.suppress(ProtocolError):
        return bool(frames) and isinstance(messages.decode_reply(frames[0]), Ack | Welcome)
    return False


def talk_nonsense(request_port: int, broadcast_port: int, stop: threading.Event) -> None:
    """Answers everything with damaged replies, and broadcasts more of them."""
    mutator, draw = Mutator(valid_replies(), 3), random.Random(3)
    context = zmq.Context()
    with contextlib.closing(context.socket(zmq.ROUTER)) as router, contextlib.closing(context.socket(zmq.PUB)) as radio:
        for made, port in ((router, request_port), (radio, broadcast_port)):
            made.setsockopt(zmq.LINGER, 0)
            made.bind(f"tcp://127.0.0.1:{port}")
        while not stop.is_set():
            radio.send_multipart(mutator.draw() or [b""])
            if router.poll(20):
                connection = router.recv_multipart()[0]
                for _ in range(draw.randint(1, 20)):
                    frames = mutator.draw()
                    if not is_believed(frames):
                        router.send_multipart([connection, *frames])
    context.term()
