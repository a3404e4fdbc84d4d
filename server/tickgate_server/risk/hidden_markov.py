"""A Gaussian hidden Markov model of a symbol's regime, fitted offline and run filtered.

Forward recursion only: the state's probability given observations up to now (Rabiner, "A tutorial on hidden Markov
models and selected applications in speech recognition", Proc. IEEE 77(2), 1989, III-A), in logarithms, so that an
outlier that no state explains underflows nowhere. Smoothing, and Viterbi over a whole window, know what came later.
"""

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from tickgate_server.risk.regime_rules import Window
from tickgate_server.risk.regimes import Regime, RegimeName

_SUM_TOLERANCE = 1e-6
Probability = Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
Vector = tuple[FiniteFloat, ...]
Feature = Literal["log_return", "log_realised_volatility"]


class HiddenMarkovInvalid(Exception):
    """A file of parameters cannot be used; says which and what was expected.

    Attributes:
        path: The file.
        why: What was expected, and what was found.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: no parameters of a hidden Markov model: {why}")
        self.path = path
        self.why = why


class HiddenMarkovParameters(BaseModel):
    """k states over d features, as JSON.

    Attributes:
        format_version: 1.
        bar_s: Seconds a bar of the windows that it was fitted on.
        window_bars: Bars a window; an observation is one window.
        features: What an observation is, in order: `log_return`, the sum of the window's log returns;
            `log_realised_volatility`, the log of the root of their mean square.
        regimes: Of each state, [k]; several states may be one regime.
        start: Probability of each state before the first observation, [k].
        transition: From the row's state to the column's, [k][k].
        means: [k][d].
        covariance_type: `diag` or `full`.
        covariances: Of each state: variances [k][1][d] if `diag`, matrices [k][d][d] if `full`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format_version: Literal[1] = 1
    bar_s: Annotated[FiniteFloat, Field(gt=0.0)]
    window_bars: int = Field(ge=2)
    features: tuple[Feature, ...] = Field(min_length=1, max_length=2)
    regimes: tuple[RegimeName, ...] = Field(min_length=1, max_length=16)
    start: tuple[Probability, ...]
    transition: tuple[tuple[Probability, ...], ...]
    means: tuple[Vector, ...]
    covariance_type: Literal["diag", "full"]
    covariances: tuple[tuple[Vector, ...], ...]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "HiddenMarkovParameters":
        k, d = len(self.regimes), len(self.features)
        if len(set(self.features)) != d:
            raise ValueError("features: each may be there once")
        rows = 1 if self.covariance_type == "diag" else d
        for name, expected in (
            ("start", (k,)),
            ("transition", (k, k)),
            ("means", (k, d)),
            ("covariances", (k, rows, d)),
        ):
            found = _shape(getattr(self, name))
            if found != expected:
                raise ValueError(f"{name}: expected shape {expected}, found {found or 'rows of several lengths'}")
        sums = np.array([self.start, *self.transition]).sum(axis=1)
        if (np.abs(sums - 1.0) > _SUM_TOLERANCE).any():
            raise ValueError(f"start and each row of transition: expected a sum of 1, found {sums.tolist()}")
        for state, matrix in enumerate(self.matrices()):
            if not (np.allclose(matrix, matrix.T, rtol=1e-9, atol=0.0) and _positive_definite(matrix)):
                raise ValueError(f"covariances of state {state}: expected a symmetric, positive definite matrix")
        return self

    def matrices(self) -> NDArray[np.float64]:
        """Covariance of each state, float64 [k, d, d]."""
        covariances = np.array(self.covariances, np.float64)
        return np.array([np.diag(one[0]) for one in covariances]) if self.covariance_type == "diag" else covariances


def load(path: Path) -> HiddenMarkovParameters:
    """Read and check a file of parameters.

    Raises:
        HiddenMarkovInvalid: Names what was expected, and where the file cannot be read.
    """
    try:
        return HiddenMarkovParameters.model_validate_json(path.read_bytes())
    except OSError as error:
        raise HiddenMarkovInvalid(path, f"cannot be read ({error.strerror})") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise HiddenMarkovInvalid(path, found) from error


class HiddenMarkovFilter:
    """One symbol's state, given what was observed so far.

    Args:
        parameters: Shared by all symbols.
    """

    def __init__(self, parameters: HiddenMarkovParameters) -> None:
        self.parameters = parameters
        factors = np.linalg.cholesky(parameters.matrices())
        self._means = np.array(parameters.means)
        self._whitening = np.linalg.inv(factors)
        half_log_determinants = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        self._log_scale = -0.5 * len(parameters.features) * math.log(2.0 * math.pi) - half_log_determinants
        self._regimes = np.array([Regime[name.upper()] for name in parameters.regimes])
        with np.errstate(divide="ignore"):  # the log of a probability of zero is -inf, as it should be
            self._log_transition = np.log(np.array(parameters.transition))
            self._log_predicted = np.log(np.array(parameters.start))
        self._log_filtered = self._log_predicted

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Filtered probability of each state, float64 [k]; `start` before the first observation."""
        found = np.exp(self._log_filtered)
        return np.asarray(found / found.sum())

    @property
    def regime(self) -> Regime:
        """The regime whose states are the most probable together; of equals the one that outranks."""
        probabilities = self.probabilities
        return max(
            (Regime(regime) for regime in set(self._regimes.tolist())),
            key=lambda regime: (float(probabilities[self._regimes == regime].sum()), regime),
        )

    def update(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take one observation.

        Args:
            observation: float64 [d]. Where it is missing (a number that is not finite), or so far away that its density
                is no number under any state, the prediction stands.

        Returns:
            Filtered probability of each state, float64 [k].
        """
        joint = self._log_predicted + self.log_densities(observation)
        highest = float(joint.max())
        if math.isfinite(highest):
            joint = joint - highest
            self._log_filtered = joint - math.log(float(np.exp(joint).sum()))
        else:
            self._log_filtered = self._log_predicted
        paths = self._log_filtered[:, None] + self._log_transition
        most = paths.max(axis=0)
        floor = np.where(np.isfinite(most), most, 0.0)  # a state that none leads to stays at -inf
        with np.errstate(divide="ignore"):
            self._log_predicted = np.log(np.exp(paths - floor).sum(axis=0)) + floor
        return self.probabilities

    def log_densities(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density of an observation under each state, float64 [k]; -inf or NaN where it is no number."""
        with np.errstate(over="ignore", invalid="ignore"):
            white = np.einsum("kij,kj->ki", self._whitening, observation - self._means)
            return np.asarray(self._log_scale - 0.5 * (white * white).sum(axis=1))


def observe(features: tuple[Feature, ...], window: Window) -> NDArray[np.float64]:
    """What a filter observes of a window, float64 [d]; NaN for the log of a volatility of zero."""
    volatility = window.realised_volatility
    values = {
        "log_return": window.log_return,
        "log_realised_volatility": math.log(volatility) if volatility > 0.0 else math.nan,
    }
    return np.array([values[name] for name in features])


def _shape(values: tuple[object, ...]) -> tuple[int, ...]:
    """Shape of nested tuples; empty where they are ragged."""
    try:
        return np.shape(np.array(values, np.float64))
    except ValueError:
        return ()


def _positive_definite(matrix: NDArray[np.float64]) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
