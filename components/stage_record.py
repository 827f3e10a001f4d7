"""What a stage says of its work -> stages/<stage>.json of the run, where reports read it, wherever the stage ran."""

from typing import Any

from promolift.contracts.artifacts import json_text
from promolift.storage import write_text


def recorded(root: str, stage: str, record: dict[str, Any]) -> dict[str, Any]:
    """Write the record and return it, for the artifact's metadata. Raises UnavailableError where `root` cannot be written."""
    write_text(f"{root}/stages/{stage}.json", json_text(record))
    return record
