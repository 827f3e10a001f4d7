"""gold/examples -> search/<candidate>.json: the best parameters that a bounded search by Optuna finds for one candidate.

Every finished trial is in search/<study>.db, so that a stopped search goes on where it was; same seed, same trials.
"""

import argparse
import hashlib
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from components.examples_input import Examples, open_examples
from components.search_log import log_search
from components.search_spaces import SPACES, Range, Trials, start_of
from promolift.contracts.artifacts import write_json
from promolift.errors import InputError, PromoliftError
from promolift.locks import held
from promolift.settings import load

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP = 4
"""Trials that run whole before the median of the others may end one."""
CRITERION = "share of the validation split's squared residual that the effects explain: 1 - R-loss / R-loss of no effect"
EXAMPLES = """examples:
  python -m components.search --run build/demo --candidate lightgbm --trials 40 --seconds 600
  python -m components.search --run build/demo --candidate uplift_net --trials 15 --seconds 1800
  python -m pipelines.run training --source complete_journey --out build/demo --search-trials 40

DIR must hold a data set: make one with `python -m pipelines.run dataset --out DIR`. A trial trains on the train split and is judged on
the validation split, by the share of the squared residual that its effects explain (1 - R-loss / R-loss of no effect; higher is
better, and the noise of real outcomes keeps it small). The first trial is what is used without a search. The test split is never
read: the best of many trials looks better on the rows that chose it than it is, and the gate judges it on others.

The same command goes on after the last finished trial; --trials counts all trials of the study, those of earlier calls too. Another
version of the examples, another seed or another candidate is another study.
DIR/search/CANDIDATE.json holds the answer; a training run with --search-trials finds the study there and uses it.
exit status: 0 done, 2 wrong input, 4 something needed cannot be had, 1 otherwise."""


@dataclass(frozen=True)
class Budget:
    """At most so many `trials` of the study, earlier ones included, and no new trial after `seconds` of this call; where it is logged.

    Raises InputError when either is less than 1.
    """

    trials: int
    seconds: int
    mlflow_uri: str = ""

    def __post_init__(self) -> None:
        for name in ("trials", "seconds"):
            if getattr(self, name) < 1:
                raise InputError(f"The search's budget of {name} is {getattr(self, name)} but must be 1 or more.")


def search(lake: str, folder: Path, name: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Go on with the candidate's study until the budget is spent. Returns what <folder>/<name>.json says; logs to MLflow where given.

    Raises InputError for a candidate without a space and for examples that cannot be used, UnavailableError when another search is
    at work on the same study or the folder cannot be written.
    """
    if name not in SPACES:
        raise InputError(f"There is nothing to search for candidate '{name}'; choose one of {', '.join(SPACES)}.")
    examples = open_examples(lake)
    study_name = f"{name}-{_fingerprint(examples, name, seed)}"
    place = (folder / study_name).resolve()
    with held(place.with_suffix(".lock"), "give another run folder", f"Another search is at work on '{place}'; wait until it ends."):
        study = _opened(f"sqlite:///{place}.db", study_name, name)
        print(f"{name}: study {study_name} has {len(_done(study))} of {budget.trials} trials in {folder}", flush=True)
        _spend(study, Trials(name, examples, seed), budget)
        record = _record(study, name, seed, examples.version)
    write_json(folder / f"{name}.json", record)
    if budget.mlflow_uri:
        log_search(budget.mlflow_uri, record, [_of_trial(trial) for trial in study.get_trials()])
    return record


def _fingerprint(examples: Examples, name: str, seed: int) -> str:
    parts = (examples.version, examples.features.hash, examples.card, SPACES[name], seed)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def _opened(storage: str, study_name: str, name: str) -> Any:
    """The study, trials that were killed at work marked as failed; the pruner leaves a network its first two epochs."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=2 if name == "uplift_net" else 0)
    study = optuna.create_study(storage=storage, study_name=study_name, load_if_exists=True, direction="maximize", pruner=pruner)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _done(study: Any) -> list[Any]:
    found: list[Any] = study.get_trials(states=DONE)
    return found


def _spend(study: Any, trials: Trials, budget: Budget) -> None:
    """Trials until either is spent; reading the data is not in the seconds, so that one trial is always begun."""
    began = time.perf_counter()
    while (done := len(_done(study))) < budget.trials and time.perf_counter() - began < budget.seconds:
        # a sampler of its own for each trial: the next one depends on the trials before and the seed, not on how often it was stopped
        study.sampler = optuna.samplers.TPESampler(seed=zlib.crc32(f"{trials.seed}-{done}".encode()))
        if not done and not study.get_trials(states=(TrialState.WAITING,)):
            study.enqueue_trial(start_of(trials.name))
        _try(study, trials, f"{trials.name}: trial {done + 1}/{budget.trials}")


def _try(study: Any, trials: Trials, said: str) -> None:
    """One trial, and one line about it. A trial that cannot be trained is a failed one, and ends the search by its own error."""
    trial, start, step = study.ask(), time.perf_counter(), 0
    parameters = {name: _suggest(trial, name, space) for name, space in SPACES[trials.name].items()}

    def report(found: float) -> None:
        nonlocal step
        trial.report(found, step)
        step += 1
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        value = trials.run(parameters, report)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        said += f" ended after step {step}, below the median of the others"
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    else:
        study.tell(trial, value)
        said += f" explains {value:.5f}"
    best = study.best_trial
    print(f"{said}; best {best.value:.5f} by trial {best.number}, {time.perf_counter() - start:.1f} s", flush=True)


def _suggest(trial: Any, name: str, space: Range) -> Any:
    whole = isinstance(space.least, int) and isinstance(space.most, int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, space.least, space.most, log=space.log)


def _record(study: Any, name: str, seed: int, version: int) -> dict[str, Any]:
    trials, best = study.get_trials(), study.best_trial
    first = next(trial for trial in trials if trial.state == TrialState.COMPLETE)
    counts = {state.name.lower(): sum(trial.state == state for trial in trials) for state in (*DONE, TrialState.FAIL)}
    return {
        "candidate": name, "study": study.study_name, "seed": seed, "examples_version": version, "criterion": CRITERION, "trials": counts,
        "start": {"number": first.number, "value": first.value, "parameters": first.params},
        "best": {"number": best.number, "value": best.value, "parameters": best.params},
    }  # fmt: skip


def _of_trial(trial: Any) -> dict[str, Any]:
    return {
        "number": trial.number, "state": trial.state.name, "parameters": trial.params, "value": trial.value,
        "steps": trial.intermediate_values, "seconds": trial.duration.total_seconds() if trial.duration else 0.0,
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m components.search", description="Search a candidate's parameters within a budget, on the data set of a run.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("--run", type=Path, required=True, metavar="DIR", help="run folder with the data set, such as build/demo")
    made.add_argument("--candidate", required=True, help=f"what to search: {', '.join(SPACES)}")
    made.add_argument("--trials", type=int, default=30, help="trials of the study in all (default: 30)")
    made.add_argument("--seconds", type=int, default=600, help="start no trial after so many seconds (default: 600)")
    made.add_argument("--seed", type=int, default=1, help="seed of sampling and training (default: 1)")
    made.add_argument("--mlflow-uri", default="", help="where it is logged (default: PROMOLIFT_MLFLOW_URI, else DIR/mlflow.db)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Search and print the answer; a failure prints its sentence as the last line and gives the status of its class."""
    options = parser().parse_args(arguments)
    folder = options.run / "search"
    try:
        uri = options.mlflow_uri or load().mlflow_uri or f"sqlite:///{(options.run / 'mlflow.db').resolve()}"
        found = search(str(options.run / "lake"), folder, options.candidate, options.seed, Budget(options.trials, options.seconds, uri))
    except PromoliftError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on after the last finished trial.", file=sys.stderr)
        return 130
    best, start = found["best"], found["start"]
    print(f"best is trial {best['number']}: {best['value']:.5f}, without a search {start['value']:.5f}; {best['parameters']}")
    print(f"{folder / options.candidate}.json has it; a training run with --search-trials {options.trials} uses it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
