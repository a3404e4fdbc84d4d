"""Finished work as a file: numbers and arrays that read back to the same bits, all of them or nothing."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write(values: Mapping[str, Any], arrays: Iterable[str], path: Path) -> None:
    """Keep values by name: written beside and renamed, so that a file half written is none.

    Args:
        values: Those named in `arrays` are arrays, the others what JSON has words for, NaN among them.
        arrays: Names of the arrays.
        path: Of the file.
    """
    of_arrays = {name: values[name] for name in arrays}
    numbers = {name: value for name, value in values.items() if name not in of_arrays}
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, numbers=np.frombuffer(json.dumps(numbers).encode(), np.uint8), **of_arrays)
    unfinished.rename(path)


def read(path: Path) -> dict[str, Any]:
    """Values as they were kept.

    Raises:
        OSError, ValueError, KeyError, zipfile.BadZipFile: It is no such file.
    """
    with np.load(path, allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files if name != "numbers"}
        numbers: dict[str, Any] = json.loads(found["numbers"].tobytes())
        return numbers | arrays
