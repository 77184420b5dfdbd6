"""The command line of `python -m learner.serve`: openpi's, and what openpi lacks."""

import argparse
import os
from pathlib import Path

from learner.serve.robots import NATIVE
from serl_launcher.errors import ConfigError
from serl_launcher.policies.places import policy_directory
from serl_launcher.publication import LATEST
from serl_launcher.transforms import robot_names

API_KEY_VARIABLE = "HIORS_API_KEY"
CHECKPOINT, DEFAULT = "policy:checkpoint", "policy:default"


def parse(argv: list[str]) -> argparse.Namespace:
    """Returns the checked arguments; ends the process with a message where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m learner.serve",
        description="Serves a policy by openpi's websocket protocol.",
        epilog=f"The API key comes from --api-key-file or the environment variable {API_KEY_VARIABLE}.",
    )
    parser.add_argument("policy", choices=[CHECKPOINT, DEFAULT], nargs="?", default=DEFAULT)
    parser.add_argument(
        "--policy.dir", dest="directory", type=Path, help="a policy, a checkpoint, or the `policies` of a live run"
    )
    parser.add_argument("--policy.config", dest="config", help="openpi's name of a configuration; chooses the robot")
    parser.add_argument("--policy.robot", dest="robot", choices=[NATIVE, *robot_names()], help="default: native")
    parser.add_argument(
        "--policy.delta-actions", dest="delta_actions", action=argparse.BooleanOptionalAction,
        help="the policy's joints are relative to the state; default: as openpi's configuration of that name",
    )  # fmt: skip
    parser.add_argument("--env", type=str.upper, choices=["ALOHA", "ALOHA_SIM", "DROID", "LIBERO"], help="as openpi's")
    parser.add_argument("--default_prompt", "--default-prompt", help="for observations without a prompt")
    parser.add_argument("--host", help="default: every address with an API key, else loopback")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key-file", type=Path, help="file whose first line is the key clients must send")
    parser.add_argument("--insecure", action="store_true", help="listen beyond loopback without a key")
    parser.add_argument("--record", action="store_true", help="keep requests and answers as .npz in --record-dir")
    parser.add_argument("--record-dir", type=Path, default=Path("policy_records"))
    _add_back_end(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--max-batch", type=int, default=16, help="observations in one policy call")
    parser.add_argument("--max-wait-ms", type=float, default=2.0, help="how long the first of a batch waits")
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads of the policy")
    parser.add_argument("--prometheus-port", type=int, default=0, help="serve metrics there; 0: do not")
    parser.add_argument("--prometheus-host", default="127.0.0.1", help="0.0.0.0 where another machine scrapes")
    arguments = parser.parse_args(argv)
    if arguments.policy == DEFAULT or arguments.directory is None:
        parser.error(
            "nothing is downloaded: name weights on this disk, `policy:checkpoint --policy.dir=DIR` "
            "(convert published ones with python -m tools.convert_checkpoint)"
        )
    return arguments


def _add_back_end(parser: argparse.ArgumentParser) -> None:
    as_saved = "default: as the policy was saved"
    parser.add_argument(
        "--policy.precision", dest="precision", choices=["float32", "bfloat16"], help=f"of the matrices; {as_saved}"
    )
    parser.add_argument(
        "--policy.compile", dest="compile", action=argparse.BooleanOptionalAction, help=f"torch.compile; {as_saved}"
    )
    parser.add_argument(
        "--policy.cuda-graph", dest="cuda_graph", action=argparse.BooleanOptionalAction,
        help=f"on a GPU, replay a call as one graph; {as_saved}",
    )  # fmt: skip


def back_end_of(arguments: argparse.Namespace) -> dict[str, str | bool]:
    """Returns the settings of `policy.acting` that the command line changes."""
    given = {name: getattr(arguments, name) for name in ("precision", "compile", "cuda_graph")}
    return {name: value for name, value in given.items() if value is not None}


def api_key_of(arguments: argparse.Namespace) -> str | None:
    """Returns the key that clients must send, None where none is configured."""
    if arguments.api_key_file is not None:
        lines = arguments.api_key_file.read_text(encoding="utf-8").splitlines()
        key = lines[0].strip() if lines else ""
    else:
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if not key:
            return None
    if not key:
        raise ConfigError(f"Expected an API key in the first line of {arguments.api_key_file}, found none.")
    return key


def robot_of(arguments: argparse.Namespace) -> str:
    """Returns the robot that --policy.robot, --policy.config or --env names, `native` where none does."""
    if arguments.robot is not None:
        return arguments.robot
    if arguments.config is not None:
        named = [robot for robot in robot_names() if robot in arguments.config.lower()]
        if len(named) != 1:
            raise ConfigError(
                f"--policy.config={arguments.config!r} names no robot among {robot_names()}; set --policy.robot."
            )
        return named[0]
    return NATIVE if arguments.env is None else arguments.env.lower().removesuffix("_sim")


def predicts_deltas(arguments: argparse.Namespace) -> bool:
    """Returns whether the policy's joints are relative to the state: as told, or as openpi's configurations have it.

    There, ALOHA's policies but the simulator's, LIBERO's of pi0 and pi0-FAST, DROID's of joint positions and UR5's do.
    """
    if arguments.delta_actions is not None:
        return arguments.delta_actions
    name = (arguments.config or "").lower()
    return any(
        part in name and not any(other in name for other in but)
        for part, but in (("aloha", ("sim",)), ("libero", ("pi05",)), ("droid_jointpos", ()), ("ur5", ()))
    )


def served_directory(path: Path) -> Path:
    """Returns the directory to load: one of publications to follow, or one with weights.

    Raises:
        ConfigError: It is neither.
    """
    return path if (path / LATEST).is_file() else policy_directory(path, option="--policy.dir")
