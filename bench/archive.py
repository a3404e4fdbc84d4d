"""The decision log: what a decision takes on the disk, how fast journals become Parquet, how long a query takes.

Decisions are made as record arrays, of 64 symbols over one day, with prices that walk, features and measured values at
random: they go through the archiver's own conversion, commits and merges. Nothing repeats that real ones would not.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from tickgate_server.archive import compaction
from tickgate_server.archive.convert import Origin, decisions_of, times_of
from tickgate_server.archive.places import Position
from tickgate_server.archive.query import DecisionLog
from tickgate_server.archive.schema import DECISIONS
from tickgate_server.archive.store import ArchiveStore
from tickgate_server.journal.entries import Model
from tickgate_server.journal.layout import DECISION, RecordKind
from tickgate_server.records import TICK, Stage
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.ticks.market import QUOTE, TRADE

ROWS = 10_000_000
SYMBOLS = 64
DAY_NS = 86_400_000_000_000
START_NS = 1_723_161_600_000_000_000  # 2024-08-09
COMMIT_ROWS = 131_072
ROWS_A_FILE = 4_194_304
HOUR = "symbol = 'SYM07USDT' AND time >= TIMESTAMP '2024-08-09 14:00:00' AND time < TIMESTAMP '2024-08-09 15:00:00'"
_MODEL = Model(0, "momentum", 3, "micro32-0123456789abcdef", "ab" * 32)


class Decisions:
    """Decisions of one day as a journal would have them, in order of time.

    Args:
        total: In the day.
        seed: Of what is random.
    """

    def __init__(self, total: int, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._step_ns = DAY_NS // total
        self._done = 0
        self._prices = 100.0 * np.exp(self._random.normal(0.0, 1.0, SYMBOLS))

    def next(self, count: int) -> NDArray[np.void]:
        """The next so many records."""
        random = self._random
        rows = np.zeros(count, DECISION)
        number = np.arange(self._done, self._done + count)
        self._done += count
        symbol = random.integers(0, SYMBOLS, count)
        self._prices *= np.exp(random.normal(0.0, 1e-4, SYMBOLS))
        price = np.round(self._prices[symbol] * np.exp(random.normal(0.0, 1e-4, count)), 2)
        scored = random.random(count) < 0.98
        bought = random.random(count) < 0.5
        approved = scored & (random.random(count) < 0.2)
        probability = 1.0 / (1.0 + np.exp(-random.normal(0.0, 0.4, count)))
        columns: dict[str, Any] = {
            "sequence": number + 1,
            "kind": RecordKind.DECISION,
            "input": TICK,
            "tick_kind": TRADE | QUOTE,
            "stage": np.where(scored, Stage.ENCODING, Stage.FEATURES),
            "applied": True,
            "ready": scored,
            "scored": scored,
            "judged": scored,
            "action": np.where(approved, np.where(bought, Action.BUY, Action.SELL), Action.HOLD),
            "reason": np.where(approved, Reason.APPROVED, Reason.CONFIDENCE_BELOW_THRESHOLD),
            "check_count": np.where(scored, len(CHECKS), 0),
            "trades_in_window": 128,
            "clock_ns": START_NS + number * self._step_ns + random.integers(0, 50_000, count),
            "exchange_ts_ns": START_NS + number * self._step_ns - random.integers(1_000_000, 5_000_000, count),
            "tick_sequence": number + 1_000_000,
            "asked_budget_ns": 50_000_000,
            "budget_ns": 50_000_000,
            "valid_for_us": np.where(approved, 5_000_000, 0),
            "waiting_ns": random.integers(2_000, 9_000, count),
            "features_ns": random.integers(600, 1_500, count),
            "inference_ns": random.integers(3_000, 9_000, count),
            "risk_ns": random.integers(800, 2_000, count),
            "total_ns": random.integers(8_000, 30_000, count),
            "price": price,
            "size": np.round(random.exponential(2.0, count), 3),
            "bid": price - 0.01,
            "ask": price + 0.01,
            "bid_size": np.round(random.exponential(5.0, count), 3),
            "ask_size": np.round(random.exponential(5.0, count), 3),
            "order_size": np.where(approved, np.round(random.exponential(1.0, count), 2), 0.0),
            "limit_price": np.where(approved, price, 0.0),
            "target": np.round(random.normal(0.0, 3.0, count), 2),
            "value": 2.0 * probability - 1.0,
            "confidence": np.maximum(probability, 1.0 - probability),
        }
        columns["features_ts_ns"] = columns["exchange_ts_ns"]
        for name, values in columns.items():
            rows[name] = values
        _put_text(rows, "symbol", np.char.mod("SYM%02dUSDT", symbol))
        _put_text(rows, "request_id", np.char.mod("gw1-%012x", random.permutation(number) * 2_654_435_761 % (1 << 46)))
        _put_text(rows, "model_asked", np.full(count, "momentum"))
        rows["vector"][:, :32] = random.normal(0.0, 1e-3, (count, 32))
        rows["vector_width"] = np.where(scored, 32, 0)
        # As a desk measures them: states and counts are few, notionals, losses and VaR are not.
        moving = (4, 5, 6, 7, 8, 9, 12, 17, 18, 19, 20)
        rows["checks"][:, moving] = random.normal(1_000.0, 300.0, (count, len(moving)))
        rows["checks"][:, 1] = rows["confidence"]
        return rows


def _put_text(rows: NDArray[np.void], name: str, texts: NDArray[np.str_]) -> None:
    rows[name] = texts.astype("S")
    rows[f"{name}_bytes"] = np.char.str_len(texts)


def fill(folder: Path, total: int, commit_rows: int = COMMIT_ROWS) -> tuple[float, float]:
    """Archive so many decisions, and merge them; returns the seconds that either took."""
    store, made = ArchiveStore(folder), Decisions(total)
    origin = Origin("", START_NS, {0: _MODEL}, [check.reason.name for check in CHECKS], {})
    converted = 0.0
    try:
        for first in range(0, total, commit_rows):
            rows = made.next(min(commit_rows, total - first))
            began = time.perf_counter()
            times_ns = times_of(rows, START_NS)
            position = Position(
                journal_ns=START_NS,
                segment=1,
                segment_ns=START_NS,
                next_sequence=int(rows["sequence"][-1]) + 1,
                time_ns=int(times_ns[-1]),
            )
            store.append("", {DECISIONS: decisions_of(rows, times_ns, origin)}, position)
            converted += time.perf_counter() - began
        began = time.perf_counter()
        while files := compaction.choose(store.manifest, ROWS_A_FILE, newest_too=True):
            compaction.merge(store, files)
        return converted, time.perf_counter() - began
    finally:
        store.close()


QUERIES = {
    "by symbol and hour, all columns": f"SELECT * FROM decisions WHERE {HOUR}",
    "by symbol and hour, counts by reason": f"SELECT reason, count(*) FROM decisions WHERE {HOUR} GROUP BY ALL",
    "by request id": "SELECT * FROM decisions WHERE request_id = 'gw1-0000deadbeef'",
    "whole day: decisions and p99 by hour": "SELECT date_trunc('hour', time) AS hour, count(*),"
    " quantile_cont(total_ns, 0.99) FROM decisions GROUP BY ALL ORDER BY hour",
}


def timed(ask: Callable[[], object], runs: int = 5) -> float:
    """Median seconds of so many runs; each opens the log anew, as the command does."""
    found: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        ask()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def archive(total: int = ROWS) -> Table:
    """Fill an archive and ask it."""
    table = Table(title=f"Decision log: {total:,} decisions of {SYMBOLS} symbols, 32 features, {len(CHECKS)} checks")
    table.add_column("what")
    table.add_column("found", justify="right")
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-archive-") as name:
        folder = Path(name)
        converted, merged = fill(folder, total)
        log = DecisionLog(folder, {})
        files = list((folder / DECISIONS).rglob("*.parquet"))
        table.add_row("files after merging", f"{len(files)}")
        table.add_row("bytes on disk per decision", f"{sum(path.stat().st_size for path in files) / total:.1f}")
        table.add_row("archived a second", f"{total / converted:,.0f}")
        table.add_row("merged a second", f"{total / merged:,.0f}")
        for what, sql in QUERIES.items():
            table.add_row(f"s, {what}, median of 5", f"{timed(partial(log.table, sql)):.3f}")
    return table
