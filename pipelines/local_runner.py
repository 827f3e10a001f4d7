"""Pipeline YAML and arguments -> its tasks as processes or containers of this machine: one printed line a task, all else in a log.

KFP's own local runners do the work. Added: readable progress, a cache that cannot be stale, the failing stage's
own sentence, and nothing left in the temporary folder.
"""

import contextlib
import copy
import io
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kfp import components, local
from kfp.local import cache

from components.subprogram import sentence_of
from pipelines.task_cache import TaskCache
from promolift import errors
from promolift.errors import PromoliftError
from promolift.memory import PeakMemory

# What KFP 2.17 writes as it runs; the tests run pipelines and would notice other words.
STARTED = re.compile(r"Executing task \S*?'([\w-]+)'")
ENDED = re.compile(r"Task \S*?'([\w-]+)'\S* finished with status \S*?(SUCCESS|FAILURE)")
REUSED = re.compile(r"Task ([\w-]+) cache hit")
LOGGED = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - [A-Z]+ - ")
OURS = re.compile(r"(?:promolift\.errors\.)?(InputError|ExpectationError|UnavailableError|PromoliftError): ")


@dataclass
class Task:
    """One task of a run: `seconds` it took (None while it runs), whether its earlier result was reused, what it wrote.

    `peak_gib`: most memory that its processes held at one moment (None where nothing ran, 0 where it was gone before the first sample).
    """

    name: str
    seconds: float | None = None
    peak_gib: float | None = None
    reused: bool = False
    outputs: dict[str, Any] = field(default_factory=dict)


class Progress(io.TextIOBase):
    """Takes what KFP and the stages write: all of it goes to a log, and each task gives one line on `screen`."""

    def __init__(self, log: Path, screen: Any, names: dict[str, str], memory: PeakMemory, aloud: str = "") -> None:
        self.log, self.screen, self.names, self.memory, self.aloud = log.open("w", encoding="utf-8"), screen, names, memory, aloud
        self.tasks: dict[str, Task] = {}
        self.failed = ""
        self._lines: list[str] = []
        self._part, self._began, self._apart = "", 0.0, False

    def write(self, text: str) -> int:
        """Log the text and read its complete lines."""
        self.log.write(text)
        self.log.flush()
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._read(line)
        return len(text)

    def _read(self, line: str) -> None:
        if not LOGGED.match(line):
            if not self.failed:
                self._lines.append(line.strip())
            if self.aloud and line.strip().startswith(self.aloud):
                self._say(f"\n    {line.strip()}")
                self._apart = True
        elif found := STARTED.search(line):
            self._start(found[1])
        elif found := ENDED.search(line):
            self._end(found[1], failed=found[2] == "FAILURE")
        elif found := REUSED.search(line):
            self.tasks[found[1]] = Task(self.names[found[1]], 0.0, reused=True)
            self._say(f"  {self.names[found[1]]:<22} unchanged\n")

    def _start(self, task: str) -> None:
        self.tasks[task], self._began = Task(self.names[task]), time.perf_counter()
        self.memory.take()
        if not self.failed:
            self._lines = []
        self._say(f"  {self.names[task]:<22} ")

    def _end(self, task: str, *, failed: bool) -> None:
        self.tasks[task].seconds, self.tasks[task].peak_gib = time.perf_counter() - self._began, self.memory.take()
        again = f"\n  {self.names[task]:<22} " if self._apart else ""
        self._apart = False
        self._say(f"{again}{self.tasks[task].seconds:6.1f} s{'  failed' if failed else ''}\n")
        if failed:
            self.failed = self.failed or self.names[task]

    def _say(self, text: str) -> None:
        self.screen.write(text)
        self.screen.flush()

    def failure(self, cause: BaseException) -> PromoliftError:
        """The error of the stage that failed first, with its own class and sentence; for any other failure, its last line and the log."""
        ours = [found[1] for found in map(OURS.match, self._lines) if found]
        if ours:
            kind: type[PromoliftError] = getattr(errors, ours[-1])
            return kind(sentence_of(self._lines, ours[-1]))
        said = sentence_of(self._lines, self.failed) if self.failed else str(cause)
        return PromoliftError(f"{self.failed or 'The pipeline'} failed: {said}. Everything it printed is in {self.log.name}.")


def for_this_machine(spec: dict[str, Any]) -> dict[str, Any]:
    """The pipeline without what only a cluster does: resources, names to show, and retries, which would repeat a refused input."""
    local_spec = copy.deepcopy(spec)
    for executor in local_spec["deploymentSpec"]["executors"].values():
        executor["container"].pop("resources", None)
    for dag in _dags(local_spec):
        for name, task in dag["tasks"].items():
            task.pop("retryPolicy", None)
            task["taskInfo"]["name"] = name
    return local_spec


def _dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec["root"]["dag"]
    yield from (c["dag"] for c in spec["components"].values() if "dag" in c)


def shown_names(spec: dict[str, Any]) -> dict[str, str]:
    """Shown name of each task by the name under which KFP logs it."""
    tasks = [t for dag in _dags(spec) for t in dag["tasks"].values()]
    return {t["componentRef"]["name"].removeprefix("comp-"): t["taskInfo"]["name"] for t in tasks}


def run_pipeline(
    pipeline: str, arguments: dict[str, Any], work: Path, log: Path, screen: Any, *, runner: Any = None, aloud: str = ""
) -> dict[str, Task]:  # fmt: skip
    """Run the YAML `pipeline`; its scratch and cache lie in `work`. Returns the tasks by shown name, in the order they ran.

    `runner`: one of KFP's local runners (default: processes of this machine). `aloud`: how lines of tasks begin that the screen shows too.

    Raises the failing stage's own error (InputError, ExpectationError, UnavailableError, else PromoliftError).
    """
    spec: dict[str, Any] = next(iter(yaml.safe_load_all(pipeline)))
    with PeakMemory() as memory, Progress(log, screen, shown_names(spec), memory, aloud) as progress:
        try:
            with _session(work, progress, runner or local.SubprocessRunner(use_venv=False)):
                components.load_component_from_text(yaml.safe_dump(for_this_machine(spec)))(**arguments)
                made = cache.get_local_cache()
        except RuntimeError as error:
            raise progress.failure(error) from None
        finally:
            progress.log.close()
    return _with_outputs(progress.tasks, made)


def _with_outputs(tasks: dict[str, Task], made: Any) -> dict[str, Task]:
    for name, outputs in made.outputs.items():
        tasks[name].outputs = outputs
    return {task.name: task for task in tasks.values()}


@contextlib.contextmanager
def _session(work: Path, progress: Progress, runner: Any) -> Iterator[None]:
    """KFP's local runner with our cache and log, and the temporary files of its tasks below `work`, removed at the end."""
    scratch = work / "tmp"
    for earlier in (scratch, work / "tasks"):
        shutil.rmtree(earlier, ignore_errors=True)
    scratch.mkdir(parents=True)
    handler, root = logging.StreamHandler(progress), logging.getLogger()
    handler.setFormatter(logging.Formatter("00:00:00.000 - %(levelname)s - %(message)s"))
    before, level = os.environ.get("TMPDIR"), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    os.environ["TMPDIR"] = str(scratch)
    try:
        with contextlib.redirect_stdout(progress), TaskCache.installed():
            local.init(
                runner, pipeline_root=str(work / "tasks"), workspace_root=str(work / "workspace"),
                enable_caching=True, cache_root=str(work / "cache"),
            )  # fmt: skip
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
        shutil.rmtree(scratch, ignore_errors=True)
