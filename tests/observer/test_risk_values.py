"""Risk data from a journal: what is written, when, what it begins with, and what the control block says of it."""

import math
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs
from tests.journal.journal_samples import approved, tick
from tests.support.processes import TICKGATE, run

from tickgate_server.control_block import FILE_NAME as CONTROL_FILE
from tickgate_server.control_block import ControlBlockReader, ControlBlockWriter, Slot
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.observer import risk_values
from tickgate_server.observer.counters import Counters
from tickgate_server.observer.process import ObserverProcess
from tickgate_server.observer.risk_values import RiskValues
from tickgate_server.observer.service import Observer, ObserverThread
from tickgate_server.observer.tail import Tail
from tickgate_server.risk.data import FILE_NAME, SYMBOLS_LIMIT, RiskData, read, write
from tickgate_server.risk.estimates import RiskValueSettings
from tickgate_server.risk.regimes import Regime

BAR_NS = 60_000_000_000
START_NS = 28_333_334 * BAR_NS  # a bar begins
SHORT = RiskValueSettings(bars_minimum=3, bars_a_day=100.0)
DAY_NS = 86_400_000_000_000


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(risk_values, "WRITE_EVERY_NS", 0)


def prices_of(bars: int, symbols: int = 2, seed: int = 1, volatility: float = 0.001) -> NDArray[np.float64]:
    """One price a bar and symbol, float64 [bars, symbols]."""
    moves = np.random.default_rng(seed).normal(0.0, volatility, (bars, symbols))
    return np.asarray(100.0 * np.exp(moves.cumsum(axis=0)))


def journal(writer: JournalWriter, prices: NDArray[np.float64], first_bar: int = 0, names: str = "ABCDEFGH") -> None:
    """Applied ticks, one of each symbol in each bar, ten seconds into it."""
    for number, row in enumerate(prices, first_bar):
        for column, price in enumerate(row.tolist()):
            stamp_ns = START_NS + number * BAR_NS + 10_000_000_000 + column
            request = tick(0, symbol=names[column], price=price, exchange_ts_ns=stamp_ns)
            writer.append_decision(request, approved(), applied=True)


def as_of_ns(bar: int, symbols: int = 2) -> int:
    return START_NS + bar * BAR_NS + 10_000_000_000 + symbols - 1


class Follower:
    """What an observer does with one journal, a step at a time."""

    def __init__(self, folder: Path, settings: RiskValueSettings = SHORT) -> None:
        self.path = folder / FILE_NAME
        self._tail = Tail(
            folder, Counters(), Lock(), ControlBlockWriter(folder / CONTROL_FILE), RiskValues(folder, settings)
        )
        self._reader = ControlBlockReader(folder / CONTROL_FILE)

    def step(self) -> None:
        self._tail.catch_up()
        self._tail.hand_back()

    def slot(self, slot: Slot) -> float:
        return self._reader.read(slot, 10**12)[0]

    def close(self) -> None:
        self._tail.close()


@contextmanager
def following(folder: Path, settings: RiskValueSettings = SHORT) -> Iterator[Follower]:
    follower = Follower(folder, settings)
    try:
        follower.step()
        yield follower
    finally:
        follower.close()


def expected_covariance(prices: NDArray[np.float64], bars_a_day: float = 100.0) -> NDArray[np.float64]:
    returns = prices[1:] / prices[:-1] - 1.0
    weights = 0.94 ** (np.arange(len(returns))[::-1] / bars_a_day)
    return np.asarray((returns.T * weights) @ returns / weights.sum() * bars_a_day)


def file_of(names: str, as_of: int, volatility: float = 0.02, regime: Regime = Regime.TRENDING) -> RiskData:
    n = len(names)
    covariance = np.full((n, n), 0.5 * volatility**2) + 0.5 * volatility**2 * np.eye(n)
    scenarios = np.random.default_rng(5).normal(0.0, volatility, (250, n))
    return RiskData(as_of, tuple(names), covariance, scenarios, np.full(n, regime, np.int8))


def test_the_file_has_the_covariance_of_the_closed_bars_of_the_journal(tmp_path: Path) -> None:
    prices = prices_of(30, symbols=3)
    with JournalWriter(tmp_path, segment_records=32) as writer:
        journal(writer, prices)
        with following(tmp_path) as follower:
            found = read(follower.path)
            assert follower.slot(Slot.RISK_DATA) == pytest.approx(found.as_of_ns / 1e9, abs=1e-6)
            assert follower.slot(Slot.RISK_DATA_GENERATION) == follower.path.stat().st_mtime_ns // 1000
    assert found.symbols == ("A", "B", "C")
    assert found.as_of_ns == as_of_ns(28, 3)  # the last bar is open
    np.testing.assert_allclose(found.covariance, expected_covariance(prices[:-1]), rtol=1e-9)
    np.testing.assert_allclose(found.scenarios, (prices[1:-1] / prices[:-2] - 1.0) * 10.0)
    assert set(found.regimes.tolist()) == {Regime.UNKNOWN}


def test_nothing_is_written_while_old_records_are_read_or_before_there_is_enough(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, following(tmp_path) as follower:
        journal(writer, prices_of(4))
        follower.step()
        assert not follower.path.exists()
        assert math.isnan(follower.slot(Slot.RISK_DATA))
        journal(writer, prices_of(1), first_bar=4)
        follower._tail.catch_up()
        lagging = follower._tail
        lagging._trouble = "unreadable"
        lagging.hand_back()
        assert not follower.path.exists()
        lagging._trouble = ""
        lagging.hand_back()
        assert follower.path.exists()


def test_it_is_written_at_most_once_in_a_while_and_only_after_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JournalWriter(tmp_path) as writer, following(tmp_path) as follower:
        journal(writer, prices_of(10))
        follower.step()
        first = follower.slot(Slot.RISK_DATA_GENERATION)
        follower.step()
        assert follower.slot(Slot.RISK_DATA_GENERATION) == first
        monkeypatch.setattr(risk_values, "WRITE_EVERY_NS", 10**18)
        journal(writer, prices_of(2), first_bar=10)
        follower.step()
        assert follower.slot(Slot.RISK_DATA_GENERATION) == first
        assert read(follower.path).as_of_ns == as_of_ns(8)
        monkeypatch.setattr(risk_values, "WRITE_EVERY_NS", 0)
        follower.step()  # what was left is written later
        assert follower.slot(Slot.RISK_DATA_GENERATION) > first
        assert read(follower.path).as_of_ns == as_of_ns(10)


def test_the_age_of_the_values_is_the_observers_not_the_files(tmp_path: Path) -> None:
    write(tmp_path / FILE_NAME, file_of("AB", START_NS))
    with following(tmp_path) as follower:
        before = follower._reader.read(Slot.RISK_DATA, 10**12)
        follower.step()
        after = follower._reader.read(Slot.RISK_DATA, 10**12)
        assert before[0] == after[0] == pytest.approx(START_NS / 1e9)
        stamps = [int(follower._reader._words[512 + 8 * Slot.RISK_DATA + copy]) for copy in (0, 4)]
        assert min(stamps) > 0  # written twice, into one copy and the other
    assert math.isnan(follower._reader.read(Slot.RISK_DATA)[0])


def test_an_observer_that_begins_anew_counts_no_bar_twice(tmp_path: Path) -> None:
    prices = prices_of(60)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with JournalWriter(whole) as one, JournalWriter(parts) as other:
        first = file_of("AB", START_NS - BAR_NS)
        write(whole / FILE_NAME, first)
        write(parts / FILE_NAME, first)
        journal(one, prices)
        with following(whole):
            pass
        for begin in range(0, 60, 20):
            journal(other, prices[begin : begin + 20], first_bar=begin)
            with following(parts):
                pass
    expected, found = read(whole / FILE_NAME), read(parts / FILE_NAME)
    assert found.as_of_ns == expected.as_of_ns == as_of_ns(58)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)
    np.testing.assert_allclose(found.scenarios, expected.scenarios, rtol=1e-9)


def test_it_goes_on_from_the_file_of_training(tmp_path: Path) -> None:
    prices = prices_of(3)
    first = file_of("ABZ", START_NS - DAY_NS)
    write(tmp_path / FILE_NAME, first)
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices)
        with following(tmp_path) as follower:
            found = read(follower.path)
    decay = 0.94 ** (1 / 100)
    move = prices[1] / prices[0] - 1.0  # of the first bar no return is known, and the third is open
    expected = decay * first.covariance[:2, :2] + (1.0 - decay) * 100.0 * np.outer(move, move)
    assert found.symbols == ("A", "B", "Z")
    np.testing.assert_allclose(found.covariance[:2, :2], expected, rtol=1e-9)
    assert found.covariance[2, 2] == pytest.approx(first.covariance[2, 2])
    assert found.regimes.tolist() == [Regime.TRENDING] * 3
    np.testing.assert_allclose(found.scenarios[:-1], first.scenarios[1:])


def test_a_file_too_old_to_begin_with_is_said_and_not_begun_with(tmp_path: Path) -> None:
    write(tmp_path / FILE_NAME, file_of("AZ", START_NS - 8 * DAY_NS))
    prices = prices_of(6)
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices)
        with capture_logs() as logs, following(tmp_path) as follower:
            found = read(follower.path)
    assert [line["event"] for line in logs] == ["risk data too old to begin with"]
    assert found.symbols == ("A", "B")
    np.testing.assert_allclose(found.covariance, expected_covariance(prices[:-1]), rtol=1e-9)
    assert found.regimes.tolist() == [Regime.UNKNOWN] * 2


def test_a_file_newer_than_the_journal_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / FILE_NAME, file_of("AB", START_NS + DAY_NS))
    before = (tmp_path / FILE_NAME).read_bytes()
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices_of(10))
        with following(tmp_path) as follower:
            assert follower.slot(Slot.RISK_DATA) == pytest.approx((START_NS + DAY_NS) / 1e9)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_damaged_file_is_said_and_not_begun_with(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no risk data")
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices_of(4))
        with capture_logs() as logs, following(tmp_path) as follower:
            assert math.isnan(follower.slot(Slot.RISK_DATA))
            assert [line["event"] for line in logs] == ["risk data unreadable"]
            journal(writer, prices_of(2), first_bar=4)
            follower.step()
            assert read(follower.path).symbols == ("A", "B")
            assert follower.slot(Slot.RISK_DATA) > 0.0


def test_a_file_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with JournalWriter(tmp_path) as writer, following(tmp_path) as follower, capture_logs() as logs:
        with monkeypatch.context() as patched:
            patched.setattr(risk_values.risk_data, "write", full)
            for begin in (0, 10, 20):
                journal(writer, prices_of(10), first_bar=begin)
                follower.step()
        assert math.isnan(follower.slot(Slot.RISK_DATA))
        assert [line["event"] for line in logs] == ["risk data not written"]
        follower.step()
        assert follower.slot(Slot.RISK_DATA) > 0.0


def test_a_server_that_replays_older_data_begins_its_bars_anew(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices_of(10), first_bar=1000)
        writer.append_control(ControlKind.SETTINGS, {})
        journal(writer, prices_of(10))
        with following(tmp_path) as follower:
            found = read(follower.path)
    assert found.as_of_ns == as_of_ns(8)
    np.testing.assert_array_equal(np.isfinite(found.covariance), True)


def test_symbols_beyond_the_limit_are_said_once(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, capture_logs() as logs, following(tmp_path) as follower:
        for number in range(SYMBOLS_LIMIT + 5):
            writer.append_decision(tick(0, symbol=f"S{number}"), approved(), applied=True)
        follower.step()
        writer.append_decision(tick(0, symbol="ONE-MORE"), approved(), applied=True)
        follower.step()
    assert [line["event"] for line in logs] == [
        "no risk data to begin with",
        "more symbols than risk data have room for",
    ]


def test_each_journal_has_a_file_with_its_own_symbols(tmp_path: Path) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    with JournalWriter(folders[0]) as one, JournalWriter(folders[1]) as other:
        journal(one, prices_of(10), names="AB")
        journal(other, prices_of(10), names="CD")
        observer = ObserverThread(Observer(folders, [folder / CONTROL_FILE for folder in folders], risk=SHORT))
        readers = [ControlBlockReader(folder / CONTROL_FILE) for folder in folders]
        while any(math.isnan(reader.read(Slot.RISK_DATA)[0]) for reader in readers):
            pass
        observer.close()
    assert [read(folder / FILE_NAME).symbols for folder in folders] == [("A", "B"), ("C", "D")]


@pytest.mark.parametrize(("controls", "risk"), [(False, SHORT), (True, None)])
def test_without_a_control_block_or_settings_there_are_no_risk_data(
    tmp_path: Path,
    controls: bool,  # noqa: FBT001 - parametrized
    risk: RiskValueSettings | None,
) -> None:
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices_of(10))
        observer = ObserverThread(Observer([tmp_path], [tmp_path / CONTROL_FILE if controls else None], risk=risk))
        observer.close()
    assert not (tmp_path / FILE_NAME).exists()


def test_an_observer_in_a_process_of_its_own_is_handed_the_settings(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices_of(10))
        observer = ObserverProcess([tmp_path], "", risk=SHORT)
        try:
            assert observer.ready() is None
            reader = ControlBlockReader(tmp_path / CONTROL_FILE)
            while math.isnan(reader.read(Slot.RISK_DATA)[0]):
                pass
        finally:
            observer.close()
    np.testing.assert_allclose(read(tmp_path / FILE_NAME).covariance, expected_covariance(prices_of(10)[:-1]))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ('{"bar_s": 0}', "--risk-settings: bar_s: Input should be greater than or equal to 0.001"),
        ('{"bars": 1}', "--risk-settings: bars: Extra inputs are not permitted"),
        ("{", "--risk-settings: Invalid JSON"),
        ('{"regime_source": "hmm"}', "regime_source hmm needs hmm_file"),
        ('{"hmm_file": "none.json"}', "none.json: no parameters of a hidden Markov model: cannot be read"),
    ],
)
def test_settings_that_are_none_end_the_observer_in_one_line(tmp_path: Path, settings: str, why: str) -> None:
    ended = run("observe", "--journal", str(tmp_path), "--metrics-listen", "", "--risk-settings", settings)
    assert ended.returncode == 1
    assert f"Error: {why}" in ended.stderr or why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_observer_by_hand_writes_risk_data_when_asked(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        journal(writer, prices_of(30))
    arguments = ["observe", "--journal", str(tmp_path), "--metrics-listen", "", "--risk-settings", "{}"]
    with subprocess.Popen([TICKGATE, *arguments], stderr=subprocess.PIPE, text=True) as observer:
        assert observer.stderr is not None
        while '"observing"' not in observer.stderr.readline():
            pass
        reader = ControlBlockReader(tmp_path / CONTROL_FILE)
        while math.isnan(reader.read(Slot.RISK_DATA)[0]):
            pass
        observer.terminate()
        assert observer.wait(30) == 0
    np.testing.assert_allclose(
        read(tmp_path / FILE_NAME).covariance, expected_covariance(prices_of(30)[:-1], 1440.0), rtol=1e-9
    )
