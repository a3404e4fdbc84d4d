"""The convention of each figure, read from the docstring that defines it: said in one place, shown in another."""

import inspect
import re

from tickgate_training.metrics import Metrics

_ENTRY = re.compile(r"^    (\w+): (.*)$")
_MISSING = "see the source: this Python was started without docstrings"


def conventions(of: type = Metrics) -> dict[str, str]:
    """What a record's docstring says of each field, by its name, in its order."""
    text = inspect.getdoc(of) or ""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Attributes:\n")[2].splitlines():
        entry = _ENTRY.match(line)
        if entry is not None:
            name, first = entry.groups()
            found[name] = first
        elif name and line.startswith("     "):
            found[name] += " " + line.strip()
        else:
            name = ""
    return found or dict.fromkeys(getattr(of, "__dataclass_fields__", ()), _MISSING)
