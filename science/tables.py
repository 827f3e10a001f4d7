"""Records of the steps -> the tables and the targets of the contract, in the one form that the page and the document are written from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from promolift.uplift.page import number

Status = Literal["met", "not met", "within error", "not run"]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """`name` of its block in the document; `rows` as text, the first column words, the others figures or words."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What the contract asks of one figure and whether it was reached; "within error": missed by less than 1.96 Monte-Carlo errors."""

    what: str
    figure: str
    target: str
    status: Status


def span(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its interval."""
    return f"{number(value)} ({number(low)} to {number(high)})"


def give_or_take(value: float | None, error: float | None) -> str:
    """A figure with its standard error."""
    return f"{number(value)} ± {number(error)}"


def reached(value: float, limit: float, error: float | None) -> Status:
    """Whether `value`, known to a standard error, is at most `limit`."""
    if value <= limit:
        return "met"
    return "within error" if error is not None and value - 1.96 * error <= limit else "not met"


def targets_table(targets: tuple[Target, ...]) -> Table:
    """The summary."""
    rows = tuple((t.what, t.figure, t.target, t.status) for t in targets)
    return Table("targets", "Targets", ("what", "measured", "target", "answer"), rows)


def runs_table(steps: Mapping[str, Record]) -> Table:
    """How long each step took when it was run, or why it was not."""
    rows = tuple((name, number(record["seconds"]), record.get("not_run", "finished")) for name, record in steps.items())
    return Table("runs", "Steps", ("step", "seconds", "state"), rows)


TableMaker = Callable[[Record], Iterator[Table]]
TargetMaker = Callable[[Record], Iterator[Target]]
