"""The first risk data: of real daily bars and of ticks, of one run and of several, by the server's own definitions."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_server.risk.bars import Bars
from tickgate_server.risk.data import FILE_NAME, RiskDataInvalid, read
from tickgate_server.risk.estimates import RiskEstimates, RiskValueSettings
from tickgate_server.risk.regimes import Regime
from tickgate_training.commands import train
from tickgate_training.config import DailyData, parse_config
from tickgate_training.data.daily import read_bars
from tickgate_training.data.simulator import simulate
from tickgate_training.risk_data import BARS_FILE, BARS_LIMIT, DAILY, risk_data_of, settings_of, write_first

TICKS = RiskValueSettings(bar_s=10.0, bars_a_day=8640.0, bars_minimum=5)
CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


def closes(*sources: str) -> NDArray[np.float64]:
    """Closing prices, float64 [sessions, sources]; the sets have the same sessions."""
    return np.array([read_bars(source)["price"].to_numpy() for source in sources]).T


def ewma(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    returns = prices[1:] / prices[:-1] - 1.0
    weights = 0.94 ** np.arange(len(returns))[::-1]
    return np.asarray((returns.T * weights) @ returns / weights.sum())


def walk(symbol: str, seed: int, *, bars: int = 200, start_s: int = 1_700_000_000) -> pl.DataFrame:
    """Some trades in each bar of ten seconds."""
    frame = simulate(bars * 5, seed, symbol=symbol, seconds_between_trades=2.0)
    first = int(frame["exchange_ts_ns"][0])
    return frame.with_columns(pl.col("exchange_ts_ns") - first + start_s * 1_000_000_000).filter(
        pl.col("exchange_ts_ns") < (start_s + bars * 10) * 1_000_000_000
    )


@pytest.fixture(scope="module")
def indices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository after a run on each of two indices."""
    repository = tmp_path_factory.mktemp("models")
    assert write_first(repository, read_bars("sp500"), DAILY).symbols == ("SPX",)
    assert write_first(repository, read_bars("nasdaq"), DAILY).symbols == ("IXIC", "SPX")
    return repository


def test_runs_on_the_same_sessions_give_the_joint_covariance_of_all(indices: Path) -> None:
    found = read(indices / FILE_NAME)
    prices = closes("nasdaq", "sp500")
    np.testing.assert_allclose(found.covariance, ewma(prices), rtol=1e-9)
    np.testing.assert_allclose(found.scenarios, (prices[1:] / prices[:-1] - 1.0)[-250:], rtol=1e-12)
    assert found.as_of_ns == read_bars("sp500")["exchange_ts_ns"][-1]
    assert Regime.UNKNOWN not in found.regimes.tolist()


def test_the_file_is_the_same_as_that_of_one_run_on_both(indices: Path) -> None:
    both = risk_data_of(pl.concat([read_bars("nasdaq"), read_bars("sp500")]), DAILY)
    assert both is not None
    found = read(indices / FILE_NAME)
    assert found.symbols == both.symbols
    np.testing.assert_allclose(found.covariance, both.covariance, rtol=1e-12)
    np.testing.assert_array_equal(found.scenarios, both.scenarios)


def test_a_newer_run_takes_the_place_of_its_symbols_bars(tmp_path: Path) -> None:
    write_first(tmp_path, walk("A", 1), TICKS)
    write_first(tmp_path, walk("B", 2), TICKS)
    written = write_first(tmp_path, walk("A", 3), TICKS)
    assert sorted(written.symbols) == ["A", "B"]
    assert written.dropped == ()
    expected, found = risk_data_of(pl.concat([walk("A", 3), walk("B", 2)]), TICKS), read(tmp_path / FILE_NAME)
    assert expected is not None
    order = [expected.symbols.index(symbol) for symbol in found.symbols]  # as they traded first in what was kept
    np.testing.assert_allclose(found.covariance, expected.covariance[np.ix_(order, order)], rtol=1e-12)


@pytest.mark.parametrize("later_s", [-3600, 3600])
def test_symbols_whose_bars_end_at_another_time_are_dropped(tmp_path: Path, later_s: int) -> None:
    write_first(tmp_path, walk("A", 1), TICKS)
    written = write_first(tmp_path, walk("B", 2, start_s=1_700_000_000 + later_s), TICKS)
    assert (written.symbols, written.dropped) == (("B",), ("A",))
    assert read(tmp_path / FILE_NAME).symbols == ("B",)


def test_symbols_of_bars_of_another_length_are_dropped(tmp_path: Path) -> None:
    write_first(tmp_path, walk("A", 1), TICKS.model_copy(update={"bar_s": 20.0}))
    written = write_first(tmp_path, walk("B", 2), TICKS)
    assert (written.symbols, written.dropped) == (("B",), ("A",))


@pytest.mark.parametrize("damage", [b"", b"PAR1 not quite PAR1"])
def test_bars_that_cannot_be_read_are_left_out(tmp_path: Path, damage: bytes) -> None:
    write_first(tmp_path, walk("A", 1), TICKS)
    (tmp_path / BARS_FILE).write_bytes(damage)
    assert write_first(tmp_path, walk("B", 2), TICKS).symbols == ("B",)


def test_bars_of_other_columns_are_left_out(tmp_path: Path) -> None:
    pl.DataFrame({"symbol": ["A"], "price": [1]}).write_parquet(tmp_path / BARS_FILE)
    assert write_first(tmp_path, walk("B", 2), TICKS).symbols == ("B",)


def test_too_few_bars_give_no_file_and_leave_the_one_that_is_there(tmp_path: Path) -> None:
    few = walk("B", 2, bars=5)
    assert write_first(tmp_path, few, TICKS).path is None
    assert list(tmp_path.iterdir()) == []
    write_first(tmp_path, walk("A", 1), TICKS)
    before = (tmp_path / FILE_NAME).read_bytes()
    assert write_first(tmp_path, few.with_columns(pl.col("exchange_ts_ns") + 10**13), TICKS).path is None
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert sorted(write_first(tmp_path, walk("C", 3), TICKS).symbols) == ["A", "C"]


def test_the_bars_kept_are_bounded_and_the_newest(tmp_path: Path) -> None:
    frame = walk("A", 1, bars=BARS_LIMIT + 500)
    write_first(tmp_path, frame, TICKS)
    kept = pl.read_parquet(tmp_path / BARS_FILE)
    assert kept.height == BARS_LIMIT
    assert kept["exchange_ts_ns"][-1] == frame["exchange_ts_ns"][-1]
    assert kept["price"][-1] == frame["price"][-1]


def test_the_bars_kept_give_what_the_ticks_give(tmp_path: Path) -> None:
    frame = walk("A", 1)
    whole = risk_data_of(frame, TICKS)
    write_first(tmp_path, frame, TICKS)
    assert whole is not None
    found = read(tmp_path / FILE_NAME)
    np.testing.assert_array_equal(found.scenarios, whole.scenarios)
    np.testing.assert_array_equal(found.covariance, whole.covariance)
    assert found.as_of_ns == whole.as_of_ns == frame["exchange_ts_ns"][-1]


def test_a_table_of_several_symbols_in_any_order_is_the_servers_stream() -> None:
    frame = pl.concat([walk("A", 1), walk("B", 2)])
    data = risk_data_of(frame, TICKS)
    assert data is not None
    bars, estimates = Bars(TICKS.bar_s, TICKS.carry_age_s), RiskEstimates(TICKS)
    stream = frame.sort("exchange_ts_ns", maintain_order=True)
    for symbol, stamp, price in stream.select("symbol", "exchange_ts_ns", "price").iter_rows():
        one = np.array([symbol.encode()]), np.array([stamp]), np.array([price])
        for closed in bars.add(*one):
            estimates.update(closed, bars.symbols)
    last = bars.finish()
    assert last is not None
    estimates.update(last, bars.symbols)
    expected = estimates.data()
    assert expected is not None
    assert (data.symbols, data.as_of_ns) == (expected.symbols, expected.as_of_ns)
    np.testing.assert_array_equal(data.covariance, expected.covariance)
    np.testing.assert_array_equal(data.regimes, expected.regimes)


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(0, 30)), max_size=120), st.integers(0, 100))
def test_whatever_the_table_the_covariance_is_positive_semidefinite(trades: list[tuple[str, int]], seed: int) -> None:
    stamps = np.cumsum([after for _, after in trades], dtype=np.int64)
    prices = np.exp(np.random.default_rng(seed).normal(0.0, 0.1, len(trades)))
    frame = pl.DataFrame(
        {
            "symbol": pl.Series([symbol for symbol, _ in trades], dtype=pl.String),
            "exchange_ts_ns": (1_700_000_000 + stamps) * 1_000_000_000,
            "price": prices,
        }
    )
    data = risk_data_of(frame, TICKS.model_copy(update={"carry_age_s": 20.0, "bars_minimum": 3}))
    if data is not None:
        deviations = np.sqrt(np.diag(data.covariance))
        assert np.linalg.eigvalsh(data.covariance / np.outer(deviations, deviations)).min() > -1e-10


def test_daily_sets_have_bars_of_a_day_and_ticks_those_of_the_server() -> None:
    package, learners = {"name": "m"}, [{"kind": "logistic"}]
    for data, expected in (
        ({"kind": "daily"}, DAILY),
        ({"kind": "simulated"}, RiskValueSettings()),
        ({"kind": "binance", "path": "x"}, RiskValueSettings()),
    ):
        assert settings_of(parse_config({"data": data, "package": package, "learners": learners})) == expected
    assert DailyData().kind == "daily"


def test_train_writes_it_beside_the_packages_and_says_so(tmp_path: Path) -> None:
    # Five years, so that the run is short.
    runs = ["--runs", str(tmp_path / "runs"), "--jobs", "1"]
    arguments = [str(CONFIGS / "daily.toml"), *runs, "--data", "sp500:2014-2018", "--models", str(tmp_path)]
    said = CliRunner().invoke(train, arguments, catch_exceptions=False, env={"COLUMNS": "500"})
    assert said.exit_code == 0
    assert f"Wrote {tmp_path / FILE_NAME}: SPX." in said.output.replace("\n", "")
    prices = read_bars("sp500:2014-2018")["price"].to_numpy()[:, None]
    np.testing.assert_allclose(read(tmp_path / FILE_NAME).covariance, ewma(prices), rtol=1e-9)
    unpublished = tmp_path / "unpublished"
    CliRunner().invoke(train, [*arguments[:-1], str(unpublished), "--no-publish"], catch_exceptions=False)
    assert not unpublished.exists()


def test_a_damaged_file_of_risk_data_is_replaced(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"none")
    with pytest.raises(RiskDataInvalid):
        read(tmp_path / FILE_NAME)
    write_first(tmp_path, walk("A", 1), TICKS)
    assert math.isfinite(read(tmp_path / FILE_NAME).covariance[0, 0])
