"""Whole-sentence errors: what is wrong, which value, what to do.

PromoliftError          anything else                                                              exit status 1, HTTP 500
├── InputError          the caller's data or argument is wrong; nothing was changed                exit status 2, HTTP 400
│   └── ConflictError   well formed, but what was stored before forbids it                         exit status 2, HTTP 409
├── ExpectationError    an expectation on a table failed; the run stops before the next stage      exit status 3, HTTP 500
└── UnavailableError    a service, port, program or path that we need cannot be had                exit status 4, HTTP 503

Over HTTP each is a problem document (application/problem+json, RFC 9457) with the sentence as its `detail`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike


class PromoliftError(Exception):
    """Base of every error that we raise on purpose; its text is meant for people."""

    exit_status, http_status, title = 1, 500, "The server failed"


class InputError(PromoliftError):
    """The caller's data or argument is wrong."""

    exit_status, http_status, title = 2, 400, "The request is wrong"


class ConflictError(InputError):
    """The request is well formed, but the state that it meets forbids it."""

    http_status, title = 409, "The request contradicts an earlier one"


class ExpectationError(PromoliftError):
    """An expectation on a table failed."""

    exit_status = 3


class UnavailableError(PromoliftError):
    """Something outside the process that we need cannot be had."""

    exit_status, http_status, title = 4, 503, "Something that the answer needs cannot be had"


@contextmanager
def usable(place: str | PathLike[str], advice: str, *also: type[Exception]) -> Iterator[None]:
    """Turn the operating system's refusal of a path into one sentence: the path, why, and `advice` on what to do.

    `place` is named where the error itself names no path. `also`: further errors that mean the same, such as a library's own.
    Raises UnavailableError; an OSError without a number is not the operating system's (a library's for HTTP) and passes.
    """
    try:
        yield
    except (OSError, *also) as problem:  # type: ignore[misc]
        if isinstance(problem, OSError) and problem.errno is None:
            raise
        named = getattr(problem, "filename", None) or place
        why = " ".join(str(getattr(problem, "strerror", None) or problem).split())
        raise UnavailableError(f"'{named}' cannot be used ({why}); {advice}.") from problem
