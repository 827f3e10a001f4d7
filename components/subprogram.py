"""A room's program (`python -m ROOM ...`) -> the records it printed; its failure becomes our own error with the same sentence.

The rooms never import each other: a stage starts another room as the program that a container would run.
"""

import json
import os
import re
import subprocess
import sys
from typing import Any

from promolift.errors import ExpectationError, InputError, PromoliftError, UnavailableError

BY_STATUS: dict[int, type[PromoliftError]] = {error.exit_status: error for error in (InputError, ExpectationError, UnavailableError)}
NAMES = "|".join(error.__name__ for error in (*BY_STATUS.values(), PromoliftError))


def run_program(room: str, arguments: list[str], **environment: str) -> list[dict[str, Any]]:
    """Run `python -m room arguments`, pass its lines on as they come, and return those that are JSON objects.

    `environment`: variables beyond those of this process.

    Raises the error of its exit status (see promolift.errors) with the sentence that it printed.
    """
    command = [sys.executable, "-m", room, *arguments]
    lines: list[str] = []
    given = {**os.environ, **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, env=given) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.strip())
    if process.returncode:
        error = BY_STATUS.get(process.returncode, PromoliftError)
        raise error(sentence_of(lines, room) or f"`{' '.join(command)}` ended with status {process.returncode} and said nothing.")
    return [record for record in map(_record, lines) if record is not None]


def sentence_of(lines: list[str], program: str) -> str:
    """What follows the last 'InputError: ' (or another of our errors) or 'program: '; without one, the last line that says anything."""
    named = re.compile(rf"(?:{re.escape(program)}|(?:[\w.]+\.)?(?:{NAMES})): (?P<sentence>.+)")
    sentences = [match["sentence"] for match in map(named.match, lines) if match]
    return (sentences or [line for line in lines if line] or [""])[-1]


def _record(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        document: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return document
