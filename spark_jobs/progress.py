"""One line of progress on stderr."""

import sys
from typing import Any


def say(job: str, what: str, counters: dict[str, Any]) -> None:
    """Print `job: what received 1,469,307 kept …` for the counters that are numbers."""
    numbers = "  ".join(f"{name} {value:,}" for name, value in counters.items() if isinstance(value, int))
    print(f"{job}: {what}  {numbers}", file=sys.stderr, flush=True)
