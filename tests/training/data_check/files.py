"""Canonical files written by hand."""

from pathlib import Path

from tickgate_training.data_check.canonical import COLUMNS

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


def line(
    seconds: float, sequence: int | str = "", trade: tuple[object, object] = ("", ""),
    quote: tuple[object, object, object, object] = ("", "", "", ""), symbol: str = "A", side: str = "",
) -> str:  # fmt: skip
    cells = (symbol, START_NS + round(seconds * SECOND_NS), sequence, *trade, side, *quote)
    return ",".join(map(str, cells))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((",".join(COLUMNS), *lines, "")))
    return path


def quiet(count: int, start: int = 1) -> list[str]:
    """Trades a second apart around 100, numbered from `start`."""
    return [line(k, k, (100.0 + 0.01 * (k % 2), 2.0)) for k in range(start, start + count)]
