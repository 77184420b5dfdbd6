"""Every decoder against damaged messages: each gives a message or a ProtocolError, at once, in bounded memory."""

import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from serl_launcher.errors import ProtocolError
from serl_launcher.events import check_fits, decode_event
from serl_launcher.images import check_image, decode_image
from serl_launcher.transport import act_frames, messages
from serl_launcher.transport.messages import Act, ActReply
from tests.fuzz.mutations import Frames, Mutator, valid_replies, valid_requests
from tests.transport_rig import SPEC

SHAPE = (16, 16, 3)


@dataclass
class CodecReport:
    """What became of the messages."""

    num_messages: int = 0
    num_decodes: int = 0
    num_refused: int = 0
    """Decodes that ended in a ProtocolError."""
    crashes: Counter[str] = field(default_factory=Counter)
    """Exceptions that are no ProtocolError."""
    slowest_s: float = 0.0
    """Longest CPU time for one message, through every decoder."""
    grown_mb: float = 0.0
    """By how much the process grew after the first tenth."""


def fuzz_codec(num_messages: int, seed: int) -> CodecReport:
    """Returns what every decoder made of that many messages."""
    report = CodecReport()
    mutator = Mutator([*valid_requests(), *valid_replies()], seed)
    settled_mb = 0.0
    for number in range(num_messages):
        if number == num_messages // 10:
            settled_mb = peak_mb()
        frames = mutator.draw()
        began_s = time.thread_time()
        refusals = [_is_refused(decode, report) for decode in decoders(frames)]
        report.slowest_s = max(report.slowest_s, time.thread_time() - began_s)
        report.num_messages += 1
        report.num_decodes += len(refusals)
        report.num_refused += sum(refusals)
    report.grown_mb = peak_mb() - settled_mb
    return report


def decoders(frames: Frames) -> list[Callable[[], object]]:
    """Returns every way in which either side might read those frames."""
    header, body = (frames[0] if frames else b""), frames[1:3]
    ways: list[Callable[[], object]] = [
        lambda: messages.decode_request(header),
        lambda: messages.decode_reply(header),
        lambda: messages.decode_announcement(header),
        lambda: act_frames.decode_act(Act(1, 100.0, 1), frames[1:], 2),
        lambda: act_frames.decode_act(Act(1, 100.0, 2), frames[1:], 2),
    ]
    for frame in body:
        ways += [
            lambda frame=frame: check_fits(decode_event(frame), SPEC),
            lambda frame=frame: check_image(frame, SHAPE),
            lambda frame=frame: decode_image(frame, SHAPE),
            lambda frame=frame: act_frames.decode_actions(ActReply(1, 4, 2), frame, 2),
        ]
    return ways


def peak_mb() -> float:
    """Returns the largest memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _is_refused(decode: Callable[[], object], report: CodecReport) -> bool:
    try:
        decode()
    except ProtocolError:
        return True
    except Exception as exc:  # Whatever it is, it would have ended a loop.
        report.crashes[f"{type(exc).__name__}: {str(exc)[:80]}"] += 1
    return False
