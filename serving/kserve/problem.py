"""Wrong input -> an RFC 9457 problem document that names field and value, as every node answers it."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_SHOWN = 120


class RequestError(Exception):
    """An HTTP 4xx; `errors` has one entry a wrong field."""

    def __init__(self, status: int, title: str, detail: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "errors": errors or []}


def of_validation(problem: ValidationError) -> RequestError:
    """A 400 for a document that does not fit its contract, or is no JSON."""
    if problem.errors()[0]["type"] == "json_invalid":
        return not_json(problem.errors()[0]["input"], problem.errors()[0]["msg"])
    errors = [
        {"field": ".".join(map(str, error["loc"])) or "(the whole document)", "value": _shown(error), "message": error["msg"]}
        for error in problem.errors()
    ]
    first = errors[0]
    detail = f"Field '{first['field']}' has the value {first['value']}: {first['message']}."
    return RequestError(400, "The request does not fit its contract", detail, errors)


def not_json(body: bytes | str, why: str) -> RequestError:
    """A 400 for a body that is no JSON."""
    shown = repr(bytes(body[:60], "utf-8", "replace") if isinstance(body, str) else bytes(body[:60]))
    detail = f"The body is not JSON ({why}); it begins with {shown}."
    return RequestError(400, "The body is not JSON", detail, [{"field": "(body)", "value": shown, "message": why}])


def _shown(error: ErrorDetails) -> str:
    if error["type"] == "missing":  # its input is the document around it
        return "(missing)"
    text = repr(error["input"])
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
