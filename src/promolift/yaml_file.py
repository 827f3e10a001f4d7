"""A YAML file that people write -> its data, and for whatever is wrong in it one sentence with file, line and the nearest right word."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from promolift.errors import InputError

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
"""Pydantic's words for a key that a class does not have."""


@dataclass(frozen=True)
class YamlFile:
    """`name`: as errors call it; `data`: what it says; `root`: its nodes, which know their lines (None: not from a text)."""

    name: str
    data: Any
    root: yaml.Node | None = None

    def wrong(self, keys: Iterable[str | int], sentence: str) -> InputError:
        """The error for what stands under `keys`, or under as many of them as the file has."""
        line = _line(self.root, list(keys))
        return InputError(f"{self.name}{f', line {line}' if line else ''}: {sentence}")

    def mapping(self, *keys: str | int) -> dict[str, Any]:
        """The mapping under `keys`; empty when there is nothing. Raises InputError for anything else."""
        value = self.data
        for key in keys:
            value = (value or {}).get(key) if isinstance(value, dict) or value is None else None
        if value is None:
            return {}
        if not isinstance(value, dict):
            what = f"'{keys[-1]}'" if keys else "the document"
            raise self.wrong(keys, f"{what} must be a mapping of keys to values, not {type(value).__name__} ({value!r}).")
        return value

    def only(self, found: Iterable[Any], known: Iterable[str], what: str, *keys: str | int) -> None:
        """Raises InputError for the first of `found` that is not `known`; `what` it is called, `keys` lead to it."""
        known = list(known)
        for name in found:
            if name not in known:
                raise self.wrong([*keys, name], f"{what} '{name}' is unknown; {nearest(str(name), known)}.")

    def checked(self, kind: type[Any], fields: dict[str, Any], label: str, *keys: str | int) -> Any:
        """A pydantic dataclass of `fields`, whose text is under `keys` and is called `label`. Raises InputError for the first wrong key."""
        try:
            return TypeAdapter(kind).validate_python(fields)
        except ValidationError as problem:
            # An unknown key explains a missing one.
            first = min(problem.errors(), key=lambda error: error["type"] not in UNKNOWN)
            path = [part for part in first["loc"] if not str(part).startswith("function-")]
            key = ".".join(map(str, path))
            known = [*getattr(kind, "__dataclass_fields__", {})]
            detail = f"has the value {first['input']!r}: {first['msg']}"
            if first["type"] in UNKNOWN:
                detail = f"is unknown; {nearest(key, known)}"
            elif first["type"].startswith("missing"):
                detail = "is missing"
            raise self.wrong([*keys, *path], f"{label}key '{key}' {detail}.") from problem


def read_yaml(path: Path, what: str, option: str) -> YamlFile:
    """The file's data and lines. Raises InputError: `what` the file is (Rules file), `option` that names another."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        file = YamlFile(str(path), yaml.safe_load(text), root)
    except OSError as problem:
        raise InputError(f"{what} {path} cannot be read ({problem.strerror}); name an existing file with {option}.") from problem
    # A date that is none is a ValueError; a text nested too deep a RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise InputError(f"{what} {path} is not YAML: {' '.join(str(problem).split())}.") from problem
    for key, line in _twice(root):
        raise InputError(f"{path}, line {line}: key '{key}' is given twice; keep one.")
    return file


def nearest(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the one that was meant, or all that are known."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"perhaps you mean '{close[0]}'" if close else f"known are {', '.join(known)}"


def _line(node: yaml.Node | None, keys: list[str | int]) -> int | None:
    """Line (from 1) of the deepest of `keys` that is there."""
    line = None if node is None else node.start_mark.line + 1
    for key in keys:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next(((k.start_mark.line + 1, v) for k, v in node.value if str(k.value) == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = (node.value[key].start_mark.line + 1, node.value[key])
        if found is None:
            break
        line, node = found
    return line


def _twice(root: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that stand a second time in their mapping, with their lines: YAML itself would silently keep the last one."""
    waiting, known = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in known:
            continue
        known.add(id(node))  # an alias is the same node again
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        yield str(key.value), key.start_mark.line + 1
                    seen.add(key.value)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
