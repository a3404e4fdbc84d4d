"""Protobuf's text format, as far as model configurations are written in it, without protobuf: that is the transport's.

Fields with scalars, strings, enum names, messages in braces or angles, lists in brackets, comments. Not: extensions,
`Any` in brackets.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

import re
from typing import TypeAlias

# Messages in one another; no configuration has more.
_DEPTH = 32

# A scalar as written: a string without its quotes, or a number or name.
Scalar: TypeAlias = "Word | str"
Node: TypeAlias = "dict[str, list[Scalar | Node]]"


class Word(str):
    """A number or a name, written without quotes."""

    __slots__ = ()


_TOKEN = re.compile(
    r"""[ \t\r\n]+ | \#[^\n]* |
    (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*') |
    (?P<word>[-+]?[A-Za-z0-9_.]+) |
    (?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = {
    **{letter: letter for letter in (b"\\", b"'", b'"', b"?")},
    **dict(
        zip((b"n", b"r", b"t", b"a", b"b", b"f", b"v"), (b"\n", b"\r", b"\t", b"\a", b"\b", b"\f", b"\v"), strict=True)
    ),
}
_CLOSES = {"{": "}", "<": ">"}


def parse_text(text: str) -> Node:
    """A message in protobuf's text format: each field's values in the order of their appearance.

    Raises:
        ValueError: It is none; says where.
    """
    return _Parser(text).message("", 0)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._kind = ""
        self._token = ""
        self._next()

    def _next(self) -> None:
        """Go to the next token; kind empty at the end."""
        while self._at < len(self._text):
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise self._fault("something else")
            self._at = found.end()
            if found.lastgroup is not None:
                self._kind, self._token = found.lastgroup, found.group()
                return
        self._kind = self._token = ""

    def _fault(self, expected: str) -> ValueError:
        line = self._text.count("\n", 0, self._at) + 1
        return ValueError(f"line {line}: expected {expected}, got {self._token or 'the end'!r}")

    def _take(self, *tokens: str) -> bool:
        if self._kind == "mark" and self._token in tokens:
            self._next()
            return True
        return False

    def message(self, closes: str, depth: int) -> Node:
        """Fields up to the token that closes the message, or to the end."""
        if depth > _DEPTH:
            raise self._fault(f"at most {_DEPTH} messages in one another")
        tree: Node = {}
        while not (self._token == closes and self._kind in {"", "mark"}):
            if self._kind != "word" or not re.fullmatch(r"[A-Za-z_]\w*", self._token):
                raise self._fault("a field's name")
            values = tree.setdefault(self._token, [])
            self._next()
            self._field(values, depth)
            self._take(",") or self._take(";")
        self._next()
        return tree

    def _field(self, values: "list[Scalar | Node]", depth: int) -> None:
        colon = self._take(":")
        if not self._take("["):
            values.append(self._value(depth, colon=colon))
            return
        if self._take("]"):
            return
        while True:
            values.append(self._value(depth, colon=colon))
            if self._take("]"):
                return
            if not self._take(","):
                raise self._fault("',' or ']'")

    def _value(self, depth: int, *, colon: bool) -> "Scalar | Node":
        if self._kind == "mark" and self._token in _CLOSES:
            closes = _CLOSES[self._token]
            self._next()
            return self.message(closes, depth + 1)
        if not colon:
            raise self._fault("':' or a message")
        if self._kind == "word":
            word = Word(self._token)
            self._next()
            return word
        if self._kind != "string":
            raise self._fault("a value")
        parts = []
        while self._kind == "string":  # neighbours are one string
            parts.append(_ESCAPE.sub(_unescaped, self._token[1:-1].encode()))
            self._next()
        return b"".join(parts).decode()


def _unescaped(found: "re.Match[bytes]") -> bytes:
    """Escapes stand for bytes, of which several may be one character."""
    what = found[1]
    if what[:1] == b"x" and len(what) > 1:
        return bytes((int(what[1:], 16),))
    if what[:1] == b"u" and len(what) > 1:
        return chr(int(what[1:], 16)).encode()
    if what.isdigit():
        return bytes((int(what, 8) & 0xFF,))
    if what not in _ESCAPED:
        raise ValueError(f"a string has the unknown escape {found[0].decode(errors='replace')!r}")
    return _ESCAPED[what]
