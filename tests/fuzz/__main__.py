"""`python -m tests.fuzz --codec 1000000 --server 100000`: damaged messages against the codec and a live server."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.fuzz.codec import CodecReport, fuzz_codec
from tests.fuzz.server import ServerReport, fuzz_server

MAX_GROWN_MB = 64.0
MAX_SLOWEST_S = 5.0


def main() -> int:
    """Fuzzes both; returns 0 where nothing crashed, hung, grew or was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--codec", type=int, default=1_000_000, help="messages against the codec")
    parser.add_argument("--server", type=int, default=100_000, help="messages against a live server")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    codec = fuzz_codec(chosen.codec, chosen.seed)
    sys.stdout.write(describe_codec(codec))
    sys.stdout.flush()
    directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
    server = fuzz_server(directory, chosen.server, chosen.seed)
    sys.stdout.write(describe_server(server))
    is_clean = is_codec_clean(codec) and server.is_clean
    sys.stdout.write(f"seed {chosen.seed}: {'clean' if is_clean else f'VIOLATION, see {directory}'}\n")
    if is_clean:
        shutil.rmtree(directory)
    return 0 if is_clean else 1


def is_codec_clean(report: CodecReport) -> bool:
    """Returns whether no decoder crashed, was slow or kept memory."""
    return not report.crashes and report.slowest_s < MAX_SLOWEST_S and report.grown_mb < MAX_GROWN_MB


def describe_codec(report: CodecReport) -> str:
    """Returns a few lines for people."""
    crashes = "".join(f"    {count} x {what}\n" for what, count in report.crashes.items())
    return (
        f"codec: {report.num_messages} messages, {report.num_decodes} decodes, {report.num_refused} refused, "
        f"{sum(report.crashes.values())} crashes, slowest {1e3 * report.slowest_s:.1f} ms, "
        f"memory grown by {report.grown_mb:.1f} MB\n{crashes}"
    )


def describe_server(report: ServerReport) -> str:
    """Returns a few lines for people."""
    return (
        f"server: {report.num_messages} messages and {report.num_junk_connections} junk connections, "
        f"{report.wall_s:.0f} s in all, {report.num_restarts} crashes, "
        f"resident {report.calm_mb:.0f} MB before, {report.peak_mb:.0f} MB at most\n"
        f"answered meanwhile: {report.num_actions} requests for actions, {report.num_pieces} for pieces of the policy\n"
        f"good actor: {report.num_delivered_steps} of {report.num_steps} steps arrived, acknowledged after p99 "
        f"{report.p99_ms:.1f} ms (before: {report.calm_p99_ms:.1f} ms), at most {report.longest_ms:.0f} ms\n"
        + "".join(f"    {problem}\n" for problem in report.problems)
    )


if __name__ == "__main__":
    sys.exit(main())
