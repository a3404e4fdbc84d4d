"""A Gaussian hidden Markov model of the regime, fitted on what the server's filter will observe.

**Fit.** Expectation-maximisation (Rabiner, "A tutorial on hidden Markov models and selected applications in speech
recognition", Proc. IEEE 77(2), 1989, III-C and V-B) on observations scaled to mean 0 and variance 1, from several
seeded starts; of those that converged the most likely is kept. Weak priors, together worth about a window a state, keep
an empty state from being a division by zero and a transition from being impossible for good. States that hold fewer
than `STATE_WINDOWS_MINIMUM` windows are outliers and no regime: such a fit is not taken.

**Start.** A server begins to filter at any moment, not where the data began: the probabilities before the first
observation are the chain's stationary ones (Hamilton, "Time Series Analysis", Princeton 1994, 22.4), not estimates from
one first window.

**Number of states.** As set, or the least Bayesian information criterion, p ln n - 2 ln L (Schwarz, "Estimating the
dimension of a model", Annals of Statistics 6(2), 1978), with p = k (k - 1) transitions + k d means + covariances. It
counts what it takes to describe the observations, and volatilities of short windows are no quite normal numbers: one
regime may come as two states. Their names put them together again, as the server's filter adds up their probabilities.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from hmmlearn.base import ConvergenceMonitor
from hmmlearn.hmm import GaussianHMM
from numpy.typing import NDArray
from pydantic import Field, model_validator
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tickgate_server.risk.estimates import RiskValueSettings
from tickgate_server.risk.hidden_markov import Feature, HiddenMarkovParameters
from tickgate_server.risk.regimes import RegimeName
from tickgate_training.errors import FeatureConstant, FeatureUndefined, NotConverged, TooFewRows
from tickgate_training.regime_states import name_states, stationary, volatilities_of
from tickgate_training.regime_windows import sequences_of
from tickgate_training.strict import Strict

STATES_LIMIT = 8
WINDOWS_A_STATE = 30
"""Windows that a fit needs for each of its states."""
STATE_WINDOWS_MINIMUM = 5.0
"""Windows that each state must hold in expectation."""
_ITERATIONS_LIMIT = 2_000
_GAIN_A_WINDOW = 1e-6  # of log likelihood, below which a fit has converged
_CONSTANT = 1e-12  # of the largest value: a deviation no larger is rounding


class RegimeConfig(Strict):
    """How a regime model is fitted, and its states are named."""

    features: tuple[Feature, ...] = Field(default=("log_return", "log_realised_volatility"), min_length=1, max_length=2)
    covariance_type: Literal["diag", "full"] = "full"
    states: int | None = Field(default=None, ge=1, le=STATES_LIMIT)
    """None: from 1 to `states_maximum`, as far as windows suffice, chosen by the information criterion."""
    states_maximum: int = Field(default=4, ge=1, le=STATES_LIMIT)
    restarts: int = Field(default=10, ge=1, le=1_000)
    """Starts of a fit for each number of states."""
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    high_volatility_ratio: float = Field(default=1.4, ge=1.0)
    """Times the usual volatility, beyond which a state is of high volatility; see `regime_states`."""
    trend_limit: float = Field(default=0.7, gt=0.0, le=1.0)
    """Trend strength beyond which a state is trending; as in the server's rules."""
    regimes: tuple[RegimeName, ...] | None = None
    """Names of the states in order of volatility, the calmest first, in place of the rule's; needs `states`."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "RegimeConfig":
        if len(set(self.features)) != len(self.features):
            raise ValueError(f"features: each may be there once, found {', '.join(self.features)}")
        if self.regimes is not None and len(self.regimes) != self.states:
            raise ValueError(f"regimes: {len(self.regimes)} names need as many states, found states = {self.states}")
        return self


@dataclass(frozen=True, slots=True)
class Candidate:
    """One number of states that was tried.

    Attributes:
        states: How many.
        bic: Bayesian information criterion, less is better; NaN where no start gave a fit.
        converged: Starts that gave a fit.
        log_likelihood: Of the best of them; NaN likewise.
    """

    states: int
    bic: float
    converged: int
    log_likelihood: float


@dataclass(frozen=True, slots=True, eq=False)
class RegimeModel:
    """A fitted model, and where it comes from.

    Attributes:
        parameters: What the server reads; states in order of volatility, the calmest first.
        source: hmmlearn's model with the same states in the same order, over (observation - shift) / scale.
        shift: float64 [d].
        scale: float64 [d].
        windows: Observations that it was fitted on.
        sequences: Runs of windows without a missing one, that they form.
        candidates: Numbers of states that were tried, ascending.
    """

    parameters: HiddenMarkovParameters
    source: GaussianHMM
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    windows: int
    sequences: int
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        """The candidate that was taken."""
        return next(one for one in self.candidates if one.states == len(self.parameters.regimes))


def fit(observed: Mapping[str, NDArray[np.float64]], config: RegimeConfig, settings: RiskValueSettings) -> RegimeModel:
    """Fit a model on windows of one or several symbols, which share its parameters.

    Args:
        observed: By symbol, float64 [windows, d]; see `regime_windows.observe_windows`.
        config: How.
        settings: Bars and windows that they were made with.

    Raises:
        TooFewRows: Fewer windows than `WINDOWS_A_STATE` for each state.
        FeatureUndefined: A feature has no value in any window: prices that never move have no volatility's logarithm.
        FeatureConstant: A feature is the same in every window.
        NotConverged: No start gave a fit with every state in use.
    """
    windows, lengths = _usable(observed, config)
    shift, scale = windows.mean(axis=0), windows.std(axis=0)
    for column, feature in enumerate(config.features):
        if not scale[column] > _CONSTANT * np.abs(windows[:, column]).max():
            raise FeatureConstant(feature, float(windows[0, column]), len(windows))
    scaled = (windows - shift) / scale
    tried = range(1, config.states_maximum + 1) if config.states is None else (config.states,)
    candidates, fits = [], {}
    # Small matrices: BLAS's threads would spend their time waiting for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        for k in (k for k in tried if k * WINDOWS_A_STATE <= len(windows)):
            found = [_fit_from(scaled, lengths, k, config, restart) for restart in range(config.restarts)]
            converged = [model for model in found if model is not None]
            likelihoods = [model.score(scaled, lengths) - len(windows) * np.log(scale).sum() for model in converged]
            best = int(np.argmax(likelihoods)) if converged else None
            if best is not None:
                fits[k] = converged[best]
            likelihood = math.nan if best is None else float(likelihoods[best])
            candidates.append(Candidate(k, _bic(likelihood, k, len(windows), config), len(converged), likelihood))
    if not fits:
        raise NotConverged(
            "hidden Markov model",
            f"none of {config.restarts} starts with {', '.join(str(one.states) for one in candidates)} states ended"
            f" within {_ITERATIONS_LIMIT} iterations and with {STATE_WINDOWS_MINIMUM:g} windows in each state",
        )
    chosen = min((one for one in candidates if one.states in fits), key=lambda one: one.bic)
    source = fits[chosen.states]
    parameters = _export(source, shift, scale, config, settings)
    return RegimeModel(parameters, source, shift, scale, len(windows), len(lengths), tuple(candidates))


def _usable(
    observed: Mapping[str, NDArray[np.float64]], config: RegimeConfig
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Windows that are not missing, float64 [n, d], and the lengths of the sequences that they form, int64."""
    seen = sum(len(windows) for windows in observed.values())
    needed = WINDOWS_A_STATE * (config.states or 1)
    stage = f"windows to fit a hidden Markov model of {config.states or 1} or more states on"
    if seen < needed:
        raise TooFewRows(stage, seen, needed)
    for column, feature in enumerate(config.features):
        if not any(np.isfinite(windows[:, column]).any() for windows in observed.values()):
            raise FeatureUndefined(feature, None)
    sequences = sequences_of(observed)
    found = sum(len(sequence) for sequence in sequences)
    if found < needed:
        raise TooFewRows(stage, found, needed)
    return np.concatenate(sequences), np.array([len(sequence) for sequence in sequences])


class _Gain(ConvergenceMonitor):  # type: ignore[misc] # hmmlearn has no types
    """Ends a fit when the log likelihood does not change any more; running out of iterations is no convergence.

    With priors the likelihood alone may fall by a little near the end, which hmmlearn's own would warn of.
    """

    def report(self, log_prob: float) -> None:
        self.history.append(log_prob)
        self.iter += 1

    @property
    def converged(self) -> bool:
        return len(self.history) >= 2 and abs(self.history[-1] - self.history[-2]) < self.tol


def _fit_from(
    scaled: NDArray[np.float64], lengths: NDArray[np.int64], k: int, config: RegimeConfig, restart: int
) -> GaussianHMM | None:
    """One fit from a start of its own, states in order of volatility; None where it is not to be taken."""
    rng = np.random.default_rng((config.seed, k, restart))
    n, d = scaled.shape
    full = config.covariance_type == "full"
    model = GaussianHMM(
        k,
        config.covariance_type,
        n_iter=_ITERATIONS_LIMIT,
        tol=_GAIN_A_WINDOW * n,
        params="tmc",
        init_params="",
        transmat_prior=1.1,  # a tenth of a transition each
        means_weight=0.01,
        covars_prior=0.1 * np.eye(d) if full else 0.1,
        covars_weight=d + 1.0 if full else 2.0,  # of one window, less those that hmmlearn takes off
    )
    model.monitor_ = _Gain(model.tol, model.n_iter, verbose=False)
    stay = rng.uniform(0.5, 0.99, k)
    model.startprob_ = np.full(k, 1.0 / k)
    model.transmat_ = np.eye(k) if k == 1 else np.where(np.eye(k) > 0, stay[:, None], ((1 - stay) / (k - 1))[:, None])
    model.means_ = scaled[rng.choice(n, k, replace=False)]
    spread = rng.uniform(0.1, 1.5, k)
    covariance = np.cov(scaled.T).reshape(d, d)
    model.covars_ = spread[:, None, None] * covariance if full else spread[:, None] * np.diag(covariance)
    model.fit(scaled, lengths)
    # How much each state holds is a question about the past, so here smoothed probabilities are right.
    held = model.predict_proba(scaled, lengths).sum(axis=0)
    if not model.monitor_.converged or not (held >= STATE_WINDOWS_MINIMUM).all():
        return None
    model.startprob_ = stationary(model.transmat_)
    return model


def _bic(log_likelihood: float, k: int, n: int, config: RegimeConfig) -> float:
    """Bayesian information criterion; the start is no parameter of its own, for it follows from the transitions."""
    d = len(config.features)
    covariances = d * (d + 1) // 2 if config.covariance_type == "full" else d
    return (k * (k - 1) + k * (d + covariances)) * math.log(n) - 2.0 * log_likelihood


def _export(
    source: GaussianHMM,
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
    config: RegimeConfig,
    settings: RiskValueSettings,
) -> HiddenMarkovParameters:
    """The parameters over observations as they are; puts the states of `source` in order of volatility."""
    means = source.means_ * scale + shift
    covariances = source.covars_ * np.outer(scale, scale)
    order = np.argsort(volatilities_of(config.features, means, covariances, settings.window_bars), kind="stable")
    full = config.covariance_type == "full"
    source.startprob_ = source.startprob_[order]
    source.transmat_ = source.transmat_[np.ix_(order, order)]
    source.means_ = source.means_[order]
    source.covars_ = source.covars_[order] if full else np.diagonal(source.covars_, axis1=1, axis2=2)[order]
    means, covariances = means[order], covariances[order]
    covariances = (covariances + covariances.transpose(0, 2, 1)) / 2.0  # equal to the last bit on both sides
    normal: tuple[RegimeName, ...] = ("normal",)
    unnamed = HiddenMarkovParameters(
        bar_s=settings.bar_s,
        window_bars=settings.window_bars,
        features=config.features,
        regimes=normal * len(order),
        start=source.startprob_.tolist(),
        transition=source.transmat_.tolist(),
        means=means.tolist(),
        covariance_type=config.covariance_type,
        covariances=(covariances if full else np.diagonal(covariances, axis1=1, axis2=2)[:, None, :]).tolist(),
    )
    names = config.regimes or name_states(unnamed, config.high_volatility_ratio, config.trend_limit)
    return unnamed.model_copy(update={"regimes": names})
