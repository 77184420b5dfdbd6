"""The phases of the demo. Each starts the scripts that a person would start, and leaves a file for the next."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serl_launcher.config import load
from serl_launcher.errors import HiorsError
from serl_launcher.run_directory import RunDirectory
from tools.demo.display import Display, Snapshot, last_line, observe
from tools.demo.ports import choose_ports
from tools.demo.processes import Crew, Process
from tools.demo.settings import DemoConfig
from tools.demo.state import DemoState
from tools.episodes import EpisodeTable

SCRIPTS = Path(__file__).resolve().parents[2] / "experiments" / "sim_pnp"
SEEDS_PER_RUN = 10_000_000
ONLINE_SEED_OFFSET = 100_000
SEALING_TIMEOUT_S = 60.0
FAREWELL_S = 30.0
START_UP_S = 15.0
PATIENCE_S = 60.0
EVAL_SECONDS_PER_EPISODE = 0.6
DEMONSTRATION_S = 0.5

Values = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One phase: what it is called, about how long it takes, and what does it."""

    name: str
    title: str
    expected_s: float
    run: Callable[[], Values]


class Demo:
    """Runs the phases that are not finished yet."""

    def __init__(self, config: DemoConfig, state: DemoState, display: Display) -> None:
        """Works below `config.output`."""
        self._config = config
        self._state = state
        self._display = display
        self._name = config.output.name
        self._phase_started = 0.0
        self._phase: Phase | None = None

    def run(self) -> None:
        """Runs every phase that is not finished; a phase that was cut short goes on where it was."""
        for phase in self.phases():
            if phase.name in self._state.phases:
                self._display.tell(f"{phase.title}: finished in an earlier start.")
                continue
            self._phase, self._phase_started = phase, time.monotonic()
            try:
                values = phase.run()
            finally:
                self._state.spend(phase.name, time.monotonic() - self._phase_started)
            self._state.finish(phase.name, values)
            self._display.tell(f"{phase.title}: {self._state.phases[phase.name].seconds:.0f} s.")

    def phases(self) -> list[Phase]:
        """Returns the phases in order."""
        config, eval_s = self._config, START_UP_S + self._config.eval_episodes * EVAL_SECONDS_PER_EPISODE
        phases = [
            Phase(name="collect", title="Collecting demonstrations",
                  expected_s=START_UP_S + config.episodes * DEMONSTRATION_S, run=self._collect),
            Phase(name="sft", title="Fine-tuning on the demonstrations",
                  expected_s=START_UP_S + config.sft_seconds, run=self._fine_tune),
            Phase(name="eval_sft", title="Evaluating the fine-tuned policy",
                  expected_s=eval_s, run=lambda: self._evaluate("sft", "eval_sft")),
            Phase(name="online", title="Online rejection sampling",
                  expected_s=START_UP_S + config.online_seconds, run=self._learn_online),
            Phase(name="eval_online", title="Evaluating the final policy",
                  expected_s=eval_s, run=lambda: self._evaluate("online", "eval_online")),
            Phase(name="eval_wrong_prompt", title="Control: the final policy told the wrong prompt",
                  expected_s=START_UP_S + config.control_episodes * EVAL_SECONDS_PER_EPISODE,
                  run=lambda: self._evaluate("online", "eval_wrong_prompt")),
        ]  # fmt: skip
        if config.fresh_sft_control:
            phases += [
                Phase(name="sft_longer", title="Control: further fine-tuning on the demonstrations alone",
                      expected_s=START_UP_S + config.online_seconds, run=self._fine_tune_longer),
                Phase(name="eval_sft_longer", title="Evaluating the control",
                      expected_s=eval_s, run=lambda: self._evaluate("sft_longer", "eval_sft_longer")),
            ]  # fmt: skip
        return phases

    def _collect(self) -> Values:
        arguments = [*self._identity("data_collection"), *self._ports()]
        run = self._run_directory("data_collection")
        learner = self._process("learner", "run_learner_data_collection.sh", arguments)
        count, seeds = f"actor.num_episodes={self._config.episodes}", f"actor.seed_offset={self._seed_offset()}"
        actor = self._process("actor", "run_actor_data_collection.sh", [*arguments, count, seeds])
        table = EpisodeTable(run.replay)
        with Crew([learner, actor], self._display.tell) as crew:
            crew.run_until_finished(actor, lambda: self._tick(run, table, actor))
            is_sealed = crew.run_until(
                lambda: len(table.read()) >= self._config.episodes,
                lambda: self._tick(run, table, learner), timeout_s=SEALING_TIMEOUT_S,
            )  # fmt: skip
        if not is_sealed:
            raise HiorsError(
                f"Expected {self._config.episodes} demonstrations in {run.replay}, got {len(table.read())}. "
                f"See {learner.log} and {actor.log}."
            )
        return {"dataset": str(run.replay)}

    def _fine_tune(self) -> Values:
        return self._train_offline("sft", self._config.base, self._config.sft_seconds)

    def _fine_tune_longer(self) -> Values:
        return self._train_offline("sft_longer", self._checkpoint("sft"), self._config.online_seconds)

    def _train_offline(self, name: str, start: Path, seconds: float) -> Values:
        run = self._run_directory(name)
        learner = self._process(
            "learner",
            "run_learner_sft.sh",
            [*self._identity(name), *self._ports(), *self._training(start, seconds)],
        )
        table = EpisodeTable(run.replay)
        with Crew([learner], self._display.tell) as crew:
            crew.run_until_finished(learner, lambda: self._tick(run, table, learner))
        return {"checkpoint": str(newest_policy(run))}

    def _learn_online(self) -> Values:
        arguments = [*self._identity("online"), *self._ports()]
        run = self._run_directory("online")
        learner = self._process(
            "learner",
            "run_learner.sh",
            [*arguments, *self._training(self._checkpoint("sft"), self._config.online_seconds)],
        )
        actor = self._process(
            "actor", "run_actor.sh", [*arguments, f"actor.seed_offset={self._seed_offset(online=True)}"]
        )
        table = EpisodeTable(run.replay)
        deadline = time.monotonic() + self._config.online_seconds + PATIENCE_S
        with Crew([learner, actor], self._display.tell) as crew:
            # The trainer counts the time of updates; waiting for data must not prolong the demo without end.
            crew.run_until(
                lambda: learner.poll() == 0 or time.monotonic() > deadline,
                lambda: self._tick(run, table, actor), timeout_s=math.inf,
            )  # fmt: skip
            actor.wait(FAREWELL_S if learner.poll() == 0 else 0.0)
        return {"checkpoint": str(newest_policy(run)), "dataset": str(run.replay), "run": str(run.root)}

    def _evaluate(self, trained: str, name: str) -> Values:
        is_control = name == "eval_wrong_prompt"
        count = self._config.control_episodes if is_control else self._config.eval_episodes
        directory = self._config.output / name
        arguments = [
            *self._identity(name),
            f"checkpoint_path={self._checkpoint(trained)}",
            f"evaluation.num_episodes={count}",
            f"evaluation.num_videos={0 if is_control else min(self._config.eval_videos, count)}",
            f"evaluation.wrong_prompt={str(is_control).lower()}",
            f"evaluation.output_dir={directory}",
        ]
        actor = self._process("eval actor", "run_actor_eval.sh", arguments)
        with Crew([actor], self._display.tell) as crew:
            crew.run_until_finished(actor, lambda: self._show(Snapshot(), actor))
        overall = json.loads((directory / "report.json").read_text())["overall"]
        self._display.tell(
            f"Policy of phase {trained!r}: {overall['num_successes']} of {overall['num_episodes']} succeeded "
            f"[{overall['wilson_low']:.0%}, {overall['wilson_high']:.0%}]."
        )
        return {"report": str(directory / "report.json")}

    def _training(self, start: Path, seconds: float) -> list[str]:
        demonstrations = json.dumps(self._state.phases["collect"].values["dataset"])
        return [f"checkpoint_path={start}", f"dataset.repo_id=[{demonstrations}]", f"algo.max_seconds={seconds}"]

    def _identity(self, name: str) -> list[str]:
        return [
            f"output_dir={self._config.output}", f"unique_identifier={self._name}_{name}", f"seed={self._config.seed}",
            "resume=auto", *self._config.overrides,
        ]  # fmt: skip

    def _run_directory(self, name: str) -> RunDirectory:
        return RunDirectory.of(load(self._identity(name)))

    def _seed_offset(self, *, online: bool = False) -> int:
        # Every training seed has start states of its own; those of the evaluation lie elsewhere.
        return SEEDS_PER_RUN * (self._config.seed + 1) + (ONLINE_SEED_OFFSET if online else 0)

    def _ports(self) -> list[str]:
        request, broadcast, message = choose_ports(load(self._config.overrides).transport)
        if message:
            self._display.tell(message)
        return [f"transport.request_port={request}", f"transport.broadcast_port={broadcast}"]

    def _process(self, name: str, script: str, arguments: list[str]) -> Process:
        assert self._phase is not None, "Processes belong to a phase."
        log = self._config.output / "logs" / f"{self._phase.name}-{name.replace(' ', '-')}.log"
        return Process(name, ["bash", str(SCRIPTS / script), *arguments], log)

    def _checkpoint(self, phase: str) -> Path:
        return Path(self._state.phases[phase].values["checkpoint"])

    def _tick(self, run: RunDirectory, table: EpisodeTable, process: Process) -> None:
        self._show(observe(run, table), process)

    def _show(self, snapshot: Snapshot, process: Process) -> None:
        elapsed = time.monotonic() - self._phase_started
        title = self._phase.title if self._phase else ""
        self._display.show(
            title, snapshot, elapsed_s=elapsed, left_s=self._seconds_left(elapsed), last_line=last_line(process.log)
        )

    def _seconds_left(self, elapsed_s: float) -> float:
        """Returns an estimate over the current phase and all that follow."""
        left = 0.0
        for phase in self.phases():
            if self._phase is not None and phase.name == self._phase.name:
                left += max(phase.expected_s - elapsed_s - self._state.seconds_so_far.get(phase.name, 0.0), 0.0)
            elif phase.name not in self._state.phases:
                left += phase.expected_s
        return left


def newest_policy(run: RunDirectory) -> Path:
    """Returns the policy in the newest checkpoint of a run; raises HiorsError where there is none."""
    checkpoints = sorted(path for path in run.checkpoints.glob("[0-9]*") if (path / "manifest.json").is_file())
    if not checkpoints:
        raise HiorsError(f"Expected a checkpoint in {run.checkpoints}, there is none. See {run.logs}.")
    return checkpoints[-1] / "policy"
