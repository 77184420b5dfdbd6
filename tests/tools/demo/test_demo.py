import io
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from rich.console import Console

from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import ConfigError, HiorsError
from serl_launcher.run_directory import RunDirectory
from serl_launcher.status import write_status
from tools.demo.display import Display, Snapshot, observe
from tools.demo.ports import choose_ports, port_holder
from tools.demo.processes import Crew, Process
from tools.demo.settings import DemoConfig, parse
from tools.demo.state import DemoState
from tools.episodes import EpisodeTable


def shell(name: str, command: str, directory: Path) -> Process:
    return Process(name, ["bash", "-c", command], directory / f"{name}.log")


def do_nothing() -> None:
    pass


def pid_in(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else None


def test_flags_and_overrides_are_understood(tmp_path: Path) -> None:
    config = parse(
        [
            f"--base={tmp_path}",
            "--episodes",
            "7",
            "algo.batch_size=8",
            "--online-seconds",
            "12.5",
            "--fresh-sft-control",
        ]
    )
    assert (config.episodes, config.online_seconds, config.fresh_sft_control) == (7, 12.5, True)
    assert config.overrides == ["algo.batch_size=8"]


def test_quick_shortens_everything_and_keeps_what_was_said(tmp_path: Path) -> None:
    config = parse([f"--base={tmp_path}", "--quick", "--eval-episodes", "9"])
    assert config.eval_episodes == 9
    assert config.online_seconds < DemoConfig().online_seconds
    assert config.output.name == "demo-quick"


def test_a_wrong_override_stops_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"algo\.batch_size"):
        parse(["algo.batchsize=8"])


def test_a_missing_base_checkpoint_stops_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make_sim_base"):
        parse([f"--base={tmp_path / 'nowhere'}"])


def test_finished_phases_are_remembered(tmp_path: Path) -> None:
    state = DemoState.open(tmp_path, {"seed": 1})
    state.spend("sft", 2.0)
    state.spend("sft", 3.0)
    state.finish("sft", {"checkpoint": "x"})
    again = DemoState.open(tmp_path, {"seed": 1})
    assert again.phases["sft"].seconds == 5.0
    assert again.phases["sft"].values == {"checkpoint": "x"}


def test_a_run_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    DemoState.open(tmp_path, {"seed": 1}).spend("sft", 1.0)
    with pytest.raises(ConfigError, match="other settings"):
        DemoState.open(tmp_path, {"seed": 2})


def test_a_longer_online_phase_continues_the_run(tmp_path: Path) -> None:
    state = DemoState.open(tmp_path, {"seed": 1, "online_seconds": 10.0})
    for phase in ("sft", "online", "eval_online"):
        state.spend(phase, 7.0)
        state.finish(phase, {})
    # The first half of the long run, started again after the second was killed.
    assert DemoState.is_beyond(tmp_path, {"seed": 1, "online_seconds": 5.0})
    assert not DemoState.is_beyond(tmp_path, {"seed": 1, "online_seconds": 10.0})
    assert not DemoState.is_beyond(tmp_path, {"seed": 2, "online_seconds": 5.0})
    assert not DemoState.is_beyond(tmp_path / "nothing", {"seed": 1, "online_seconds": 5.0})
    with pytest.raises(ConfigError, match="other settings"):
        DemoState.open(tmp_path, {"seed": 2, "online_seconds": 20.0})
    longer = DemoState.open(tmp_path, {"seed": 1, "online_seconds": 20.0, "overrides": ["algo.optimizer.ema=0.998"]})
    assert set(longer.phases) == {"sft"}
    assert longer.settings["overrides"] == ["algo.optimizer.ema=0.998"]
    assert longer.seconds_so_far == {"online": 7.0}


def test_the_control_may_be_added_to_a_finished_run() -> None:
    assert DemoConfig(fresh_sft_control=True).identity() == DemoConfig().identity()


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    pid_file, goal_file = tmp_path / "pid", tmp_path / "goal"
    worker = shell("actor", f"echo $$ > {pid_file}; exec sleep 60", tmp_path)
    goal = shell("learner", f"until [ -e {goal_file} ]; do sleep 0.05; done", tmp_path)
    told: list[str] = []
    first: list[int] = []

    def kill_once() -> None:
        pid = pid_in(pid_file)
        if pid and not first:
            first.append(pid)
            pid_file.unlink()
            os.kill(pid, signal.SIGKILL)
        elif pid:
            goal_file.touch()

    with Crew([worker, goal], told.append) as crew:
        crew.run_until_finished(goal, kill_once)
    assert told == ["The actor ended (signal SIGKILL); it is started again."]


def test_a_process_is_interrupted_once_so_that_an_actor_hands_over_before_it_ends(tmp_path: Path) -> None:
    noted = tmp_path / "interrupts"
    worker = shell(
        "actor", f"trap 'echo int >> {noted}; N=1' INT; touch {tmp_path / 'ready'}; "
        "until [ -n \"$N\" ]; do sleep 0.05; done; sleep 0.5", tmp_path,
    )  # fmt: skip
    with Crew([worker], do_none_tell):
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        worker.ask_to_stop()
        worker.ask_to_stop()
    assert noted.read_text() == "int\n"


def test_nothing_is_left_running_after_a_phase(tmp_path: Path) -> None:
    worker = shell("actor", "trap 'exit 0' INT; while true; do sleep 0.05; done", tmp_path)
    with Crew([worker], do_none_tell):
        assert worker.poll() is None
    assert worker.poll() is not None


def do_none_tell(_: str) -> None:
    pass


def test_a_process_that_cannot_run_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    worker = shell("actor", "echo Unknown key; exit 2", tmp_path)
    with pytest.raises(HiorsError, match="Unknown key"), Crew([worker], do_none_tell) as crew:
        crew.run_until_finished(worker, do_nothing)


def test_a_port_in_use_is_named_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert f"process {os.getpid()}" in port_holder(port)
        usual = TransportConfig(request_port=port, broadcast_port=spare.getsockname()[1])
        request, broadcast, message = choose_ports(usual)
    assert len({request, broadcast, port}) == 3
    assert f"Port {port} is in use by process {os.getpid()}" in message


def test_without_a_terminal_lines_are_rare() -> None:
    output = io.StringIO()
    with Display(Console(file=output, width=200)) as display:
        for _ in range(10):
            display.show("Online", Snapshot(replay="10 steps"), elapsed_s=61.0, left_s=5.0)
    assert output.getvalue() == "[Online] 1:01 passed, about 0:05 left; replay 10 steps\n"


def test_a_snapshot_shows_what_the_trainer_says(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, tmp_path / "replay")
    write_status(
        run.status("trainer"),
        {"updates": 30, "updates_per_s": 2.5, "loss": 0.5, "policy_version": 20, "update_to_data": 0.25},
    )
    snapshot = observe(run, EpisodeTable(run.replay))
    assert snapshot.updates == "30 (2.5/s), loss 0.5000"
    assert snapshot.update_to_data == "0.25"
    assert snapshot.policy == "version 20"


def test_a_snapshot_of_nothing_is_all_dashes(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, tmp_path / "replay")
    assert set(observe(run, EpisodeTable(run.replay)).rows().values()) == {"-"}
