"""What the states of a regime model are: their volatility, trend and share of time, and the regime that names each.

**The rule of names**, in the order in which the server's own rules judge, a later one outranking those before it:

- `normal`: every state, unless
- `trending`: the state's mean move is more than `trend_limit` of the path that its bars travel on average; and
- `high_volatility`: its volatility is more than `high_volatility_ratio` times the usual one, the geometric mean of the
  states' volatilities weighted by their share of time.

So a model whose states are alike has no state of high volatility, whatever their number, and one may have several.
`risk_off` speaks of the correlation across a basket, which no observation of one symbol shows: the rule never gives it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.risk.hidden_markov import Feature, HiddenMarkovParameters
from tickgate_server.risk.regimes import RegimeName


@dataclass(frozen=True, slots=True)
class State:
    """One state, as a person reads it.

    Attributes:
        regime: Its name.
        mean_log_return: Of a window; NaN where the model does not observe it.
        volatility: Of a bar, as a fraction; see `volatilities_of`.
        dwell_bars: Bars that it lasts on average once it is there, 1 / (1 - p) windows (Rabiner 1989, II-A); infinite
            where it is the only one.
        share: Of time, in the long run.
    """

    regime: RegimeName
    mean_log_return: float
    volatility: float
    dwell_bars: float
    share: float


def describe(parameters: HiddenMarkovParameters) -> tuple[State, ...]:
    """The states of a model, in its order."""
    means, transition = np.array(parameters.means), np.array(parameters.transition)
    drifts = _drifts(parameters.features, means)
    volatilities = volatilities_of(parameters.features, means, parameters.matrices(), parameters.window_bars)
    return tuple(
        State(
            regime,
            float(drift),
            float(volatility),
            parameters.window_bars / (1.0 - stay) if stay < 1.0 else math.inf,
            float(share),
        )
        for regime, drift, volatility, stay, share in zip(
            parameters.regimes, drifts, volatilities, np.diag(transition).tolist(), stationary(transition), strict=True
        )
    )


def name_states(
    parameters: HiddenMarkovParameters, high_volatility_ratio: float, trend_limit: float
) -> tuple[RegimeName, ...]:
    """Name each state by the rule above; the names that `parameters` has count for nothing."""
    states = describe(parameters)
    usual = math.exp(math.fsum(state.share * math.log(state.volatility) for state in states))
    names: list[RegimeName] = []
    for state in states:
        if state.volatility > high_volatility_ratio * usual:
            names.append("high_volatility")
        elif trend_strength(state.mean_log_return, state.volatility, parameters.window_bars) > trend_limit:
            names.append("trending")
        else:
            names.append("normal")
    return tuple(names)


def trend_strength(mean_log_return: float, volatility: float, window_bars: int) -> float:
    """Mean move of a window over the mean path of its bars, 0 to 1; NaN where the mean move is.

    The path is the sum of the bars' absolute log returns. They are taken as normal, with mean m, the window's shared
    out, and root mean square `volatility`; so their mean absolute value is that of a folded normal distribution,
    s sqrt(2 / pi) exp(-m^2 / 2 s^2) + m erf(m / s sqrt(2)) with s^2 = volatility^2 - m^2 (Leone, Nelson and Nottingham,
    "The folded normal distribution", Technometrics 3(4), 1961).

    >>> trend_strength(0.0, 0.01, 15)
    0.0
    >>> trend_strength(0.15, 0.01, 15)  # each bar the same move
    1.0
    """
    move = mean_log_return / window_bars
    variance = volatility * volatility - move * move
    if variance <= 1e-12 * volatility * volatility:
        return 1.0
    deviation = math.sqrt(variance)
    folded = deviation * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * (move / deviation) ** 2)
    return abs(move) / (folded + move * math.erf(move / (deviation * math.sqrt(2.0))))


def volatilities_of(
    features: tuple[Feature, ...], means: NDArray[np.float64], covariances: NDArray[np.float64], window_bars: int
) -> NDArray[np.float64]:
    """Volatility of a bar in each state, float64 [k]: root of the mean square of its log returns.

    Where `log_realised_volatility` is observed, that of the state's median window. From `log_return` alone, of bars
    that are taken as independent: a window's variance and squared mean, shared out.

    Args:
        features: What an observation is.
        means: float64 [k, d].
        covariances: float64 [k, d, d].
        window_bars: Bars a window.
    """
    if "log_realised_volatility" in features:
        return np.asarray(np.exp(means[:, features.index("log_realised_volatility")]))
    return np.asarray(np.sqrt(covariances[:, 0, 0] / window_bars + (means[:, 0] / window_bars) ** 2))


def stationary(transition: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution that the transitions leave as it is, float64 [k]; where there are several, the least in norm.

    Args:
        transition: From the row's state to the column's, float64 [k, k], rows with a sum of 1.
    """
    k = len(transition)
    equations = np.vstack((transition.T - np.eye(k), np.ones(k)))
    found = np.linalg.lstsq(equations, np.append(np.zeros(k), 1.0), rcond=None)[0].clip(0.0, 1.0)
    return np.asarray(found / found.sum())


def _drifts(features: tuple[Feature, ...], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean log return of a window in each state, float64 [k]; NaN where it is not observed."""
    return means[:, features.index("log_return")] if "log_return" in features else np.full(len(means), np.nan)
