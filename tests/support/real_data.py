"""The real captures that tests read in place; a test that needs one is skipped, by its name, where it is absent."""

import os
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from tickgate_training.data.binance import Capture, read_capture

ROOT = Path(os.environ.get("MARKET_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
SPOT_BTC, SPOT_BTC_NEXT, SPOT_ETH, USDM_BTC = CAPTURES = (
    "spot-btcusdt-20240808",
    "spot-btcusdt-20240809",
    "spot-ethusdt-20240808",
    "usdm-btcusdt-20240808",
)


def capture_path(name: str) -> Path:
    path = ROOT / "binance" / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"real data absent: {name} (looked for {path}; set MARKET_DATA)")
    return path


def capture(name: str) -> Capture:
    return _read(capture_path(name))


@cache
def _read(path: Path) -> Capture:
    return read_capture(path)


def ticks(name: str) -> pl.DataFrame:
    return capture(name).frame
