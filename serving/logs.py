"""Log records -> lines of JSON on stderr, one an event, with the trace they belong to."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

TRACE: ContextVar[str] = ContextVar("trace", default="")
"""The trace id of the request that is being answered."""


class JsonFormatter(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """time, level, logger, message, trace and, after an exception, its traceback."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname, "logger": record.name, "message": record.getMessage(), "trace": TRACE.get()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value})


def as_json(level: int) -> None:
    """Make every logger of the process write such lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
