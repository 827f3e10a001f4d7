"""What Go's encoding/json says of bytes that are no JSON: the router puts these words into the body of its 500.

The scanner's states and their sentences: https://pkg.go.dev/encoding/json, file scanner.go; held against the router itself by
tests/serving/test_kserve_router.py.
"""

from collections.abc import Iterator
from contextlib import suppress

_SPACE, _DIGITS, _HEX = b" \t\r\n", b"0123456789", b"0123456789abcdefABCDEF"


class _FoundError(Exception):
    """The sentence."""


def sentence(body: bytes) -> str:
    """The error of `json.Unmarshal(body, …)`; empty where the syntax is right. Deeper nesting than Go allows is not looked at."""
    scanner = _Scanner(body)
    try:
        scanner.value()
        if body[scanner.place :].lstrip(_SPACE):
            scanner.space()
            scanner.refuse("after top-level value")
    except _FoundError as found:
        return str(found)
    return ""


class _Scanner:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self.place = 0

    def refuse(self, context: str) -> None:
        """Raises the sentence about the byte at the present place."""
        sign = chr(self._next())
        quoted = {"'": "\\'", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\v": "\\v", "\a": "\\a"}
        shown = quoted.get(sign) or (sign if sign.isprintable() else _escaped(sign))
        raise _FoundError(f"invalid character '{shown}' {context}")

    def _next(self) -> int:
        """The next byte; Go tries its states with a blank at the end of the input."""
        return self._body[self.place] if self.place < len(self._body) else 0x20

    def _takes(self, signs: bytes) -> bool:
        """Whether the next byte is one of `signs`; then it is passed."""
        if self._next() not in signs:
            return False
        self.place += 1
        return True

    def space(self) -> None:
        """Pass white space; more must follow."""
        while self.place < len(self._body) and self._body[self.place] in _SPACE:
            self.place += 1
        self._more()

    def _more(self) -> None:
        if self.place >= len(self._body):
            raise _FoundError("unexpected end of JSON input")

    def value(self) -> None:
        """Pass one value."""
        self.space()
        first = chr(self._next())
        self.place += 1
        kinds = {"{": self._object, "[": self._array, '"': self._string}
        if first in kinds:
            kinds[first]()
        elif first in "-0123456789":
            self._number(first)
        elif word := {"t": "true", "f": "false", "n": "null"}.get(first):
            self._literal(word)
        else:
            self.place -= 1
            self.refuse("looking for beginning of value")

    def _literal(self, word: str) -> None:
        for expected in word[1:]:
            if not self._takes(expected.encode()):
                self.refuse(f"in literal {word} (expecting '{expected}')")

    def _array(self) -> None:
        self.space()
        if self._takes(b"]"):
            return
        for _ in self._members(b"]", "after array element"):
            self.value()

    def _object(self) -> None:
        self.space()
        if self._takes(b"}"):
            return
        for _ in self._members(b"}", "after object key:value pair"):
            self.space()
            if not self._takes(b'"'):
                self.refuse("looking for beginning of object key string")
            self._string()
            self.space()
            if not self._takes(b":"):
                self.refuse("after object key")
            self.value()

    def _members(self, end: bytes, context: str) -> Iterator[None]:
        """One turn a member; what follows it is a comma or the end."""
        while True:
            yield
            self.space()
            if self._takes(end):
                return
            if not self._takes(b","):
                self.refuse(context)

    def _string(self) -> None:
        while not self._takes(b'"'):
            self._more()
            if self._takes(b"\\"):
                self._escape()
            elif self._next() < 0x20:
                self.refuse("in string literal")
            else:
                self.place += 1

    def _escape(self) -> None:
        if self._takes(b'bfnrt\\/"'):
            return
        if not self._takes(b"u"):
            self.refuse("in string escape code")
        for _ in range(4):
            if not self._takes(_HEX):
                self.refuse("in \\u hexadecimal character escape")

    def _number(self, first: str) -> None:
        if first == "-":
            first = chr(self._next())
            self._need(_DIGITS, "in numeric literal")
        with suppress(_EndError):
            if first != "0":
                self._digits()
            if self._may(b"."):
                self._need(_DIGITS, "after decimal point in numeric literal")
                self._digits()
            if self._may(b"eE"):
                self._takes(b"+-")
                self._need(_DIGITS, "in exponent of numeric literal")
                self._digits()

    def _need(self, signs: bytes, context: str) -> None:
        if not self._takes(signs):
            self.refuse(context)

    def _may(self, signs: bytes) -> bool:
        if self.place >= len(self._body):
            raise _EndError
        return self._takes(signs)

    def _digits(self) -> None:
        while self._may(_DIGITS):
            pass


class _EndError(Exception):
    """A number that the input ends with is whole."""


def _escaped(sign: str) -> str:
    return f"\\x{ord(sign):02x}" if ord(sign) < 0x80 else f"\\u{ord(sign):04x}"
