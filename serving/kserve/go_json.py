"""JSON as Go's encoding/json re-encodes it: what an Ensemble's answer looks like byte for byte."""

import json
from decimal import Decimal
from typing import Any

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def _number(value: float) -> str:
    """Shortest form, plain from 1e-6 to below 1e21 and with a bare exponent outside, as Go's float64 encoder prints it."""
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.removesuffix(".0")
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa.removesuffix('.0')}e{exponent[0]}{exponent[1:].lstrip('0')}"


def _string(value: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "".join(_ESCAPES.get(c, c) for c in text)


def encode(value: Any) -> str:
    """Encode parsed JSON: keys sorted, every number a float64, `<>&` escaped, no spaces."""
    match value:
        case None | True | False:
            return json.dumps(value)
        case int() | float():
            return _number(float(value))
        case str():
            return _string(value)
        case list():
            return "[" + ",".join(map(encode, value)) + "]"
        case _:
            return "{" + ",".join(f"{_string(key)}:{encode(value[key])}" for key in sorted(value)) + "}"


def reencode(value: Any) -> bytes:
    """`encode` as UTF-8."""
    return encode(value).encode()
