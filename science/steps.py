"""Steps of the run -> one JSON file each, reused while the step's code, settings, data file and library versions are the same.

A step's code is its module and every module of this project that it imports, directly or not, so a change anywhere below it is seen.
"""

import ast
import hashlib
import importlib.metadata
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError, UnavailableError

ROOT = Path(__file__).resolve().parents[1]
PLACES = {"promolift": ROOT / "src", "components": ROOT, "science": ROOT}
"""Where the modules of each package lie."""
LIBRARIES = ("numpy", "scipy", "lightgbm", "tensorflow")
Result = dict[str, Any]
Told = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One part of the run: `measure(**settings)` of `module`; `data` is the file that it reads, if it was given one.

    `without`: why it cannot run, where it cannot run without data that were not given.
    """

    name: str
    module: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    without: str = ""

    def key(self) -> str:
        """Changes when anything changes that the result depends on."""
        digest = hashlib.sha256(json.dumps([self.name, dict(self.settings), versions()], sort_keys=True, default=str).encode())
        for path in sorted(code_of(self.module)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
        if self.data is not None and self.data.is_file():
            digest.update(self.data.read_bytes())
        return digest.hexdigest()

    def measure(self) -> Result:
        """Do the work. Raises what the step's module raises."""
        return dict(importlib.import_module(self.module).measure(**self.settings))


def versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a figure."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def code_of(module: str) -> set[Path]:
    """Files of the module and of all modules of this project below it."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = file_of(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting.extend(_imports(path))
    return found


def file_of(module: str) -> Path | None:
    """The file of one of this project's modules; None for another's, and for a name that is not a module."""
    first = module.split(".", maxsplit=1)[0]
    if first not in PLACES:
        return None
    base = PLACES[first].joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def done(step: Step, out: Path, *, wanted: bool, told: Told) -> Result:
    """The step's record: `key`, `seconds`, and its `result` or the reason why it was `not_run`. Written as DIR/steps/NAME.json.

    A finished step is read back while its key is the same. Data that cannot be had is a reason; it is tried again at the next run.
    """
    file, key = out / "steps" / f"{step.name}.json", step.key()
    before = _read(file)
    if before.get("key") == key and "result" in before:
        told(f"{step.name}: code, settings and data are unchanged; {file} is reused ({before['seconds']} s then)")
        return before
    unasked = "" if wanted else f"It was not asked for, and {step.name} has no result for this code and these settings."
    if reason := unasked or step.without:
        told(f"{step.name}: not run: {reason}")
        return {"key": key, "seconds": 0.0, "not_run": reason}
    told(f"{step.name}: starts")
    start = time.perf_counter()
    try:
        record: Result = {"key": key, "result": finite(step.measure())}
    except (InputError, UnavailableError) as problem:
        told(f"{step.name}: not run: {problem}")
        return {"key": key, "seconds": 0.0, "not_run": str(problem)}
    record["seconds"] = round(time.perf_counter() - start, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, record)
    told(f"{step.name}: done in {record['seconds']} s")
    return record


def finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have (NaN and infinity), tuples as lists."""
    if isinstance(value, Mapping):
        return {str(name): finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(file: Path) -> Result:
    """What an earlier run left, or nothing where there is none or a broken one."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
