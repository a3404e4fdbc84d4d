"""A regime model as files: the parameters that the server reads, and beside them where they come from.

`NAME.json` holds numbers and names alone, in the server's own format (`tickgate_server.risk.hidden_markov`);
`NAME.origin.json` the data's fingerprint, the date, the versions of what made it and how the fit went, with the
SHA-256 of the parameters that it speaks of. Both are written beside and renamed, the origin first: parameters that are
there have had theirs.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime

from tickgate_server.risk.hidden_markov import HiddenMarkovFilter, HiddenMarkovParameters, load
from tickgate_training.errors import ParityBroken
from tickgate_training.regime_model import RegimeConfig, RegimeModel
from tickgate_training.regime_windows import sequences_of
from tickgate_training.strict import Strict

PARITY_LIMIT = 1e-9
"""Largest difference of a probability between the server's filter and hmmlearn."""
_PREFIXES = 64  # of each sequence, that hmmlearn is asked for
_LIBRARIES = ("hmmlearn", "numpy", "scipy", "scikit-learn", "tickgate")


class RegimeOrigin(Strict):
    """Where a file of parameters comes from.

    `bic` and `log_likelihood` are of each number of states that was tried; None where no start gave a fit.
    """

    parameters_sha256: str
    data_fingerprint: str
    symbols: tuple[str, ...]
    first_ts_ns: int
    last_ts_ns: int
    created: AwareDatetime
    libraries: dict[str, str]
    config: RegimeConfig
    windows: int
    windows_missing: int
    sequences: int
    states_tried: tuple[int, ...]
    bic: tuple[float | None, ...]
    log_likelihood: tuple[float | None, ...]
    starts_converged: tuple[int, ...]
    parity_difference: float
    parity_windows: int


def filtered(parameters: HiddenMarkovParameters, observations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each state given the observations up to each, by the server's filter.

    Args:
        parameters: Of the model.
        observations: float64 [n, d]; NaN where one is missing.

    Returns:
        float64 [n, k].
    """
    state = HiddenMarkovFilter(parameters)
    found = [state.update(one) for one in observations]
    return np.array(found).reshape(len(observations), len(parameters.regimes))


def check_parity(model: RegimeModel, observed: Mapping[str, NDArray[np.float64]]) -> tuple[float, int]:
    """Compare the server's filter on the parameters with hmmlearn on the model that they were exported from.

    hmmlearn gives smoothed probabilities. Those of a prefix's last window have nothing after them to be smoothed by:
    they are the filtered ones. So it is asked for prefixes, `_PREFIXES` of each sequence, evenly spread to its end.

    Args:
        model: As it was fitted.
        observed: By symbol, float64 [windows, d]; see `regime_windows.observe_windows`.

    Returns:
        The largest difference, and the windows that were compared.

    Raises:
        ParityBroken: It is above `PARITY_LIMIT`, or no number.
    """
    rows, ours, theirs, begin = [], [], [], 0
    for sequence in sequences_of(observed):
        scaled, found = (sequence - model.shift) / model.scale, filtered(model.parameters, sequence)
        for end in np.unique(np.linspace(1, len(sequence), min(_PREFIXES, len(sequence)), dtype=np.int64)).tolist():
            rows.append(begin + end - 1)
            ours.append(found[end - 1])
            theirs.append(model.source.predict_proba(scaled[:end])[-1])
        begin += len(sequence)
    differences = np.abs(np.array(ours) - np.array(theirs))
    row, state = np.unravel_index(differences.argmax(), differences.shape)  # of a NaN, if there is one
    difference = float(differences[row, state])
    if not difference <= PARITY_LIMIT:
        exported, reference = float(ours[row][state]), float(theirs[row][state])
        rule = f"a filtered probability must be within {PARITY_LIMIT:g} of it"
        raise ParityBroken(rows[row], exported, reference, rule)
    return difference, len(rows)


def write(
    path: Path,
    model: RegimeModel,
    config: RegimeConfig,
    observed: Mapping[str, NDArray[np.float64]],
    *,
    data_fingerprint: str,
    span_ns: tuple[int, int],
) -> RegimeOrigin:
    """Check parity, and write parameters and origin.

    Args:
        path: Of the parameters; the origin's name is its stem with `.origin.json`.
        model: What to write.
        config: How it was fitted.
        observed: What it was fitted on.
        data_fingerprint: Of the table; see `data.table.fingerprint`.
        span_ns: Stamps of the table's first and last trade.

    Returns:
        The origin, as it was written.

    Raises:
        ParityBroken: See `check_parity`; nothing is written.
        HiddenMarkovInvalid: The server would not load the parameters; those that were there stay.
        OSError: A file cannot be written.
    """
    difference, compared = check_parity(model, observed)
    content = (model.parameters.model_dump_json(indent=1) + "\n").encode()
    tried = model.candidates
    origin = RegimeOrigin(
        parameters_sha256=hashlib.sha256(content).hexdigest(),
        data_fingerprint=data_fingerprint,
        symbols=tuple(observed),
        first_ts_ns=span_ns[0],
        last_ts_ns=span_ns[1],
        created=datetime.now(UTC),
        libraries={"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
        config=config,
        windows=model.windows,
        windows_missing=sum(len(windows) for windows in observed.values()) - model.windows,
        sequences=model.sequences,
        states_tried=tuple(one.states for one in tried),
        bic=tuple(one.bic if one.converged else None for one in tried),
        log_likelihood=tuple(one.log_likelihood if one.converged else None for one in tried),
        starts_converged=tuple(one.converged for one in tried),
        parity_difference=difference,
        parity_windows=compared,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        load(unfinished)
        _replace(origin_path(path), (origin.model_dump_json(indent=1) + "\n").encode())
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return origin


def origin_path(path: Path) -> Path:
    """Where the origin of parameters at `path` is.

    >>> origin_path(Path("models/hidden-markov.json"))
    PosixPath('models/hidden-markov.origin.json')
    """
    return path.with_name(f"{path.stem}.origin.json")


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    unfinished.rename(path)
