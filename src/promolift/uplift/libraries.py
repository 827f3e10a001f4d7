"""Name of an optional library -> the module, or a sentence that says what needs it: the rest of the package works without."""

import importlib
from typing import Any

from promolift.errors import UnavailableError


def library(name: str, purpose: str) -> Any:
    """The module `name`, imported now. Raises UnavailableError, with `purpose`, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".", maxsplit=1)[0]
        raise UnavailableError(f"{purpose} needs the library {package}, which is not installed: `pip install {package}`.") from error
