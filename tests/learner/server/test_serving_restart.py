"""A learner that dies while robots ask: every question ends, and the robots are served again by themselves."""

import dataclasses
import threading
import time
from contextlib import ExitStack

from serl_launcher.errors import DeadlineExceeded, HiorsError
from tests import transport_rig as rig

NUM_ACTORS = 4
DEADLINE_S = 1.0


class Asker:
    """Asks without pause; notes when each question ended and how."""

    def __init__(self, client):
        self.client = client
        self.ended = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stop.is_set():
            began_s = time.monotonic()
            try:
                self.client.act([rig.observation(1.0)], timeout_s=DEADLINE_S)
                outcome = "answer"
            except HiorsError as exc:
                outcome = type(exc).__name__
            now_s = time.monotonic()
            self.ended.append((now_s, now_s - began_s, outcome))
            time.sleep(0.02)

    def first_answer_after(self, since_s, *, timeout_s=20.0):
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            for ended_s, _, outcome in list(self.ended):
                if ended_s > since_s and outcome == "answer":
                    return ended_s - since_s
            time.sleep(0.02)
        raise AssertionError(f"No action within {timeout_s} s of the restart: {self.ended[-5:]}")


def test_every_question_ends_and_every_robot_recovers(tmp_path):
    with ExitStack() as robots:
        with rig.learner(tmp_path) as learner:
            config = learner.config
            askers = []
            for number in range(NUM_ACTORS):
                actor_id = f"actor-{number}"
                spool = robots.enter_context(rig.spool(tmp_path, actor_id))
                askers.append(Asker(robots.enter_context(rig.client(config, spool, actor_id=actor_id))))
                robots.callback(askers[-1].thread.join)
                robots.callback(askers[-1].stop.set)
            started_s = time.monotonic()
            for asker in askers:
                asker.first_answer_after(started_s)
            learner.inference.is_silent = True
            time.sleep(0.3)
        time.sleep(1.5)
        with rig.learner(tmp_path, dataclasses.replace(rig.QUICK, **_ports(config))):
            ready_s = time.monotonic()
            delays = [asker.first_answer_after(ready_s) for asker in askers]
    assert max(delays) < 10.0
    for asker in askers:
        assert max(took_s for _, took_s, _ in asker.ended) < DEADLINE_S + 3.0
        assert {outcome for _, _, outcome in asker.ended} <= {"answer", DeadlineExceeded.__name__, "Refused"}


def _ports(config):
    return {"request_port": config.request_port, "broadcast_port": config.broadcast_port}
