"""A market whose edge can change its sign half way, and a life of retraining on it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.models.package import MODEL_FILE, read_manifest
from tickgate_training.config import TrainingConfig, parse_config
from tickgate_training.data.simulator import simulate
from tickgate_training.export import probabilities
from tickgate_training.pipeline import Options, run
from tickgate_training.retraining.config import RetrainConfig, parse_retrain_config
from tickgate_training.retraining.round import Round, serving
from tickgate_training.retraining.rounds import RoundLine, held
from tickgate_training.samples import Samples, prepare
from tickgate_training.trading import Trader

EDGE = 0.4
EVALUATED = 1000
_SIGMA = 2e-4
_PERSISTENCE = 0.85
_WAIT_US = 100_000.0


def turning(trades: int, seed: int, edge: float = EDGE, *, turns: bool = True) -> pl.DataFrame:
    """`simulate`'s ticks with another planted relation, one that is the same in size with either sign.

    A hidden factor f follows an AR(1) of unit variance and sets the waiting times, exp(f) of their median, which
    feature `gap_s` sees. The mid's log return from trade t to t + 1 is sigma (s edge f_t + sqrt(1 - edge^2) e_t), e
    standard normal, s = 1; where the market turns, s = -1 from the middle on.
    """
    frame = simulate(trades, seed)  # sizes, aggressors and sequences
    rng = np.random.default_rng(1000 + seed)
    factor = np.empty(trades)
    factor[0] = rng.standard_normal()
    shocks = rng.standard_normal(trades) * math.sqrt(1.0 - _PERSISTENCE**2)
    for at in range(1, trades):
        factor[at] = _PERSISTENCE * factor[at - 1] + shocks[at]
    sign = np.where(np.arange(trades) >= trades // 2, -1.0, 1.0) if turns else np.ones(trades)
    noise = rng.standard_normal(trades) * math.sqrt(1.0 - edge * edge)
    returns = np.concatenate(([0.0], (sign * edge * factor + noise)[:-1]))
    mid = 100.0 * np.exp(_SIGMA * np.cumsum(returns))
    bid = np.maximum(np.rint(mid / 0.01 - 0.5), 1.0) * 0.01
    ask = bid + 0.01
    price = np.where(frame["aggressor"].to_numpy() > 0, ask, bid)
    stamps_ns = 1_700_000_000_000_000_000 + np.cumsum(np.ceil(_WAIT_US * np.exp(factor)).astype(np.int64)) * 1000
    return frame.with_columns(
        exchange_ts_ns=pl.Series(stamps_ns), price=pl.Series(price), bid=pl.Series(bid), ask=pl.Series(ask)
    )


def training(folder: Path, **more: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "data": {"kind": "simulated", "trades": 1000},
        "package": {"name": "sim", "repository": str(folder / "models")},
        "runs": str(folder / "runs"),
        "learners": [{"kind": "logistic"}],
        "label": {"horizon_trades": 5},
        "walk_forward": {"train_rows": 1500, "validation_rows": 500, "test_rows": EVALUATED, "embargo_rows": 10},
        "policy": {"decide_every_rows": 5, "risk_budget": 1000.0, "round_trips_minimum": 10},
    }
    return document | more


def files(folder: Path) -> list[dict[str, Any]]:
    """Sources: all Parquet files in `ticks`."""
    columns = {
        "stamp": {"name": "exchange_ts_ns", "unit": "ns"},
        "price": "price",
        "size": "size",
        "sequence": "sequence",
        "aggressor": {"form": "sign", "name": "aggressor"},
        "quote": {"bid": "bid", "ask": "ask", "bid_size": "bid_size", "ask_size": "ask_size"},
    }
    return [{"kind": "file", "paths": [str(folder / "ticks" / "*.parquet")], "symbol": {"name": "symbol"},
             "columns": columns}]  # fmt: skip


def settings(folder: Path, **more: Any) -> RetrainConfig:
    section = {"state": str(folder / "state"), "sources": files(folder), "promotion": "rule"}
    given = more.pop("training", {})
    return parse_retrain_config({"training": training(folder, **given), "retrain": section | more})


def arrive(folder: Path, frame: pl.DataFrame, start: int, stop: int) -> None:
    """Rows [start, stop) come as one more file."""
    (folder / "ticks").mkdir(exist_ok=True)
    frame[start:stop].write_parquet(folder / "ticks" / f"{start:08d}.parquet")


def first_champion(config: RetrainConfig, frame: pl.DataFrame) -> None:
    """Version 1, as `tickgate train` makes it."""
    run(config.training, Options(jobs=1), frame=frame)


def one_round(config: RetrainConfig, **more: Any) -> RoundLine:
    with held(config.retrain.state) as rounds:
        return Round(config, rounds, **more).run()


@dataclass(frozen=True)
class Life:
    """What became of a market's life.

    Attributes:
        lines: Of its rounds.
        stitched: Net returns of what was in production, a trade.
        frozen: Of the first champion, over the same trades.
        turn: Where the market turns among them.
    """

    lines: list[RoundLine]
    stitched: NDArray[np.float64]
    frozen: NDArray[np.float64]
    turn: int

    @property
    def promotions(self) -> int:
        return sum(line.decision == "promoted" for line in self.lines)


def live(folder: Path, seed: int, *, trades: int = 15_000, turns: bool = True, **more: Any) -> Life:
    """Retrain as trades come in, and trade with what is in production: each version from when it took over."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = turning(trades, seed, turns=turns)
    config = settings(folder, **more)
    begin = 3500
    first_champion(config, frame[:begin])
    arrive(folder, frame, 0, begin)
    samples = prepare(frame, config.training)
    in_force: list[tuple[int, int]] = []  # from which row, which version
    lines: list[RoundLine] = []
    for start in range(begin, trades - EVALUATED + 1, EVALUATED):
        in_force.append((start, serving(config).champion))
        arrive(folder, frame, start, start + EVALUATED)
        lines.append(one_round(config))
    stop = in_force[-1][0] + EVALUATED
    stitched = net_of(config, samples, in_force, begin, stop)
    frozen = net_of(config, samples, [(begin, 1)], begin, stop)
    return Life(lines, stitched, frozen, trades // 2 - begin)


def net_of(
    config: RetrainConfig, samples: Samples, in_force: list[tuple[int, int]], begin: int, stop: int
) -> NDArray[np.float64]:
    """Net returns over rows [begin, stop) of versions from a row on each, through their packages' graphs."""
    trader = Trader(samples.books, samples.stamps_ns, config.training)
    positions = []
    for (start, version), end in zip(in_force, [*(at for at, _ in in_force[1:]), stop], strict=True):
        package = config.model_folder / str(version)
        p = probabilities((package / MODEL_FILE).read_bytes(), samples.features[start:end])
        positions.append(trader.decide(p.astype(np.float64), read_manifest(package).decision_threshold, start))
    return np.asarray(trader.run(np.concatenate(positions), begin).result.net)


def plain(folder: Path, **more: Any) -> TrainingConfig:
    return parse_config(training(folder, **more))
