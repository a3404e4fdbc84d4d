"""Fundamentals as JSON: a list of objects, a row each, whose members are the columns.

    [{"symbol": "AAPL", "name": "eps", "as_of_ns": 1700000000000000000, "value": 6.13}]

Numbers are kept as they are written: a time keeps its last nanosecond, and a cell is judged as one of a CSV file is.
"""

import json
from typing import Any


class JsonInvalid(ValueError):
    """Content is no list of rows; the message says where, and what was expected."""


def rows_of(content: bytes) -> list[dict[str, str | None]]:
    """The rows, each with every column that any row has; what a row lacks, null and empty text are None.

    Raises:
        JsonInvalid: It is no such list, or an object names a member twice or holds what is no cell; says which row.
    """
    try:
        found = json.loads(
            content.decode("utf-8-sig"),
            parse_int=str,
            parse_float=str,
            parse_constant=str,  # NaN and infinities: no numbers to whoever reads the cells
            object_pairs_hook=_members,
        )
    except RecursionError as error:
        raise JsonInvalid("cannot be read as JSON (it is nested too deeply)") from error
    except ValueError as error:  # no UTF-8, no JSON, or as `_members` says
        raise JsonInvalid(f"cannot be read as JSON ({error})") from error
    if not isinstance(found, list):
        raise JsonInvalid(f"expected a list of objects, found {_kind(found)}")
    names: dict[str, None] = {}
    for row, members in enumerate(found):
        if not isinstance(members, dict):
            raise JsonInvalid(f"row {row}: expected an object, found {_kind(members)}")
        names |= dict.fromkeys(members)
    return [{name: _cell(row, name, members.get(name)) for name in names} for row, members in enumerate(found)]


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise JsonInvalid(f"an object has two members {twice!r}")
    return found


def _cell(row: int, name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise JsonInvalid(f"column {name!r}, row {row}: expected text or a number, found {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text or a number", bool: "true or false", type(None): "null"}
    return names[type(value)]
