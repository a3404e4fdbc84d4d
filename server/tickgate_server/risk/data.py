"""Risk data: what the observer, and before it training, tells the engine of the market; a dated file.

One `.npz` without pickles: covariance of a day's simple returns, the returns that scenarios are made of, the regimes,
and when they were taken. Written beside and renamed, so a half-written one never loads.
"""

import io
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tickgate_server.risk.regimes import Regime

FORMAT_VERSION = 1
SYMBOLS_LIMIT = 512
SCENARIOS_LIMIT = 1024
FILE_NAME = "risk-data.npz"


class RiskDataInvalid(Exception):
    """A risk-data file cannot be used; says which file and what was expected.

    Attributes:
        path: The file.
        why: What was expected, and what was found.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: no risk data: {why}")
        self.path = path
        self.why = why


@dataclass(frozen=True, slots=True, eq=False)
class RiskData:
    """The market as the gate sees it.

    Attributes:
        as_of_ns: Wall clock of the newest observation in it, nanoseconds since the epoch.
        symbols: n of them, at most `SYMBOLS_LIMIT`.
        covariance: float64 [n, n], C order: of simple returns over one day. Symmetric, all finite.
        scenarios: float64 [T, n], C order: simple returns over one day, oldest first; T may be 0, at most
            `SCENARIOS_LIMIT`.
        regimes: int8 [n]: `Regime` of each symbol.
    """

    as_of_ns: int
    symbols: tuple[str, ...]
    covariance: NDArray[np.float64]
    scenarios: NDArray[np.float64]
    regimes: NDArray[np.int8]


def write(path: Path, data: RiskData) -> None:
    """Write risk data beside `path` and rename it.

    Raises:
        RiskDataInvalid: It is not what `RiskData` says.
        OSError: It cannot be written.
    """
    _require_valid(path, data)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            format_version=np.int64(FORMAT_VERSION),
            as_of_ns=np.int64(data.as_of_ns),
            symbols=np.array([symbol.encode() for symbol in data.symbols], "S32"),
            covariance=data.covariance,
            scenarios=data.scenarios,
            regimes=data.regimes,
        )
    unfinished.rename(path)


def read(path: Path) -> RiskData:
    """Read and check a risk-data file.

    Raises:
        RiskDataInvalid: Names what was expected.
        OSError: It cannot be opened.
    """
    return parse(path, path.read_bytes())


def parse(path: Path, content: bytes) -> RiskData:
    """Check the content of a risk-data file; raises `RiskDataInvalid`."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            version = int(file["format_version"])
            if version != FORMAT_VERSION:
                raise RiskDataInvalid(path, f"expected format {FORMAT_VERSION}, found {version}")
            data = RiskData(
                int(file["as_of_ns"]),
                tuple(symbol.decode() for symbol in file["symbols"].tolist()),
                np.ascontiguousarray(file["covariance"], np.float64),
                np.ascontiguousarray(file["scenarios"], np.float64),
                np.ascontiguousarray(file["regimes"], np.int8),
            )
    except (KeyError, ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise RiskDataInvalid(path, f"cannot be read ({error})") from error
    _require_valid(path, data)
    return data


def _require_valid(path: Path, data: RiskData) -> None:
    n = len(data.symbols)
    if n > SYMBOLS_LIMIT or len(set(data.symbols)) != n:
        raise RiskDataInvalid(path, f"expected at most {SYMBOLS_LIMIT} symbols, each once, found {n}")
    if data.covariance.shape != (n, n):
        raise RiskDataInvalid(path, f"covariance: expected shape {(n, n)}, found {data.covariance.shape}")
    scenarios = data.scenarios.shape
    if len(scenarios) != 2 or scenarios[1] != n or scenarios[0] > SCENARIOS_LIMIT:
        raise RiskDataInvalid(path, f"scenarios: expected [at most {SCENARIOS_LIMIT}, {n}], found {list(scenarios)}")
    if data.regimes.shape != (n,) or not np.isin(data.regimes, [int(regime) for regime in Regime]).all():
        raise RiskDataInvalid(path, f"regimes: expected {n} numbers of a regime")
    if not (np.isfinite(data.covariance).all() and np.isfinite(data.scenarios).all()):
        raise RiskDataInvalid(path, "covariance and scenarios: expected finite numbers")
    if not np.allclose(data.covariance, data.covariance.T, rtol=1e-9, atol=0.0) or (np.diag(data.covariance) < 0).any():
        raise RiskDataInvalid(path, "covariance: expected a symmetric matrix with a diagonal >= 0")
    if data.as_of_ns <= 0:
        raise RiskDataInvalid(path, f"as_of_ns: expected nanoseconds since the epoch, > 0, found {data.as_of_ns}")
