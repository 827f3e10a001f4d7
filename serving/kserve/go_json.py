"""JSON text -> the text that Go's encoding/json writes after reading it into a map.

An Ensemble of KServe's router decodes and re-encodes every body: keys are sorted, numbers become 64-bit floats, `<`, `>` and `&`
are escaped.
"""

import json
import re
from decimal import Decimal
from typing import Any

from serving.kserve import go_json_error


def read_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`, numbers as floats (`null` is None). Raises ValueError for anything else, in Go's words."""
    try:
        value = json.loads(body.decode("utf-8", "surrogateescape"), parse_int=float, parse_constant=_refuse)
    except ValueError as problem:
        raise ValueError(go_json_error.sentence(body) or str(problem)) from problem
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"json: cannot unmarshal {_kind(value)} into Go value of type map[string]interface {{}}")
    return value


def write(value: Any) -> str:
    """The value as Go's json.Marshal writes it."""
    if isinstance(value, dict):
        # Go sorts by bytes; UTF-8 bytes sort as code points do, which is how Python sorts.
        return "{" + ",".join(f"{_text(key)}:{write(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(write(item) for item in value) + "]"
    if isinstance(value, float):
        return _number(value)
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    whole = re.sub("[\ud800-\udfff]", "\ufffd", value)  # one for each byte that is no UTF-8 and each half of a pair
    quoted = json.dumps(whole, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        quoted = quoted.replace(sign, f"\\u{ord(sign):04x}")
    return quoted


def _number(value: float) -> str:
    """Shortest digits; plain from 1e-6 up to 1e21, else with an exponent of no leading zero below."""
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    if 1e-6 <= abs(value) < 1e21:
        plain = f"{Decimal(repr(value)):f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits, _, exponent = f"{Decimal(repr(value)).normalize():e}".partition("e")
    return f"{digits}e{int(exponent):+d}" if int(exponent) < 0 else f"{digits}e+{int(exponent):02d}"


def _kind(value: Any) -> str:
    return {list: "array", str: "string", float: "number", bool: "bool"}[type(value)]


def _refuse(constant: str) -> Any:
    raise ValueError(f"invalid character in {constant}")
