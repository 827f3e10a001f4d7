"""Whole-sentence errors: what is wrong, which value, what to do.

PromoliftError
├── InputError          the caller's data or argument is wrong; nothing was changed (exit status 2, HTTP 400)
├── ExpectationError    an expectation on a table failed; the run stops before the next stage (exit status 3)
└── UnavailableError    a service, port, program or path that we need cannot be had (exit status 4, HTTP 503)
"""


class PromoliftError(Exception):
    """Base of every error that we raise on purpose; its text is meant for people."""

    exit_status = 1


class InputError(PromoliftError):
    """The caller's data or argument is wrong."""

    exit_status = 2


class ExpectationError(PromoliftError):
    """An expectation on a table failed."""

    exit_status = 3


class UnavailableError(PromoliftError):
    """Something outside the process that we need cannot be had."""

    exit_status = 4
