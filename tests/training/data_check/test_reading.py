"""Files to rows: what each format gives, and what is told of rows that are none."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.real_data import SPOT_BTC, USDM_BTC, capture, capture_path
from tests.training.data_check.files import START_NS, line, quiet, write

from tickgate.v1 import Tick
from tickgate_client import ticks
from tickgate_client.errors import BadTickFile
from tickgate_client.ticks import read_csv
from tickgate_server.ticks.market import QUOTE, TRADE
from tickgate_training.data.daily import read_bars
from tickgate_training.data_check import recording
from tickgate_training.data_check.bars import DailyBars
from tickgate_training.data_check.canonical import COLUMNS, CanonicalFile
from tickgate_training.data_check.capture import CaptureFile
from tickgate_training.data_check.recording import Piece, Recording
from tickgate_training.errors import SourceUnreadable


def whole(source: Recording) -> Piece:
    (piece,) = source.pieces()
    return piece


def as_read(piece: Piece) -> list[tuple[object, ...]]:
    found = []
    for at, symbol in enumerate(piece.symbols):
        trade, quote = tuple(piece.values[at, :2].tolist()), tuple(piece.values[at, 2:].tolist())
        kind = int(piece.kinds[at])
        found.append(
            (
                symbol, int(piece.stamps_ns[at]), int(piece.sequences[at]), trade if kind & TRADE else None,
                quote if kind & QUOTE else None,
            )
        )  # fmt: skip
    return found


def as_sent(tick: Tick) -> tuple[object, ...]:
    trade = (tick.trade.price, tick.trade.size) if tick.HasField("trade") else None
    quote = None
    if tick.HasField("quote"):
        quote = (tick.quote.bid, tick.quote.ask, tick.quote.bid_size, tick.quote.ask_size)
    return tick.symbol, tick.exchange_ts_ns, tick.sequence, trade, quote


cells = st.sampled_from(["", "9", "10.5", "0", "-1", "nan", "1_0", "x", "1e3", " 2", "é"])
rows_of_cells = st.tuples(
    st.sampled_from(["A", "é", "", "x" * 33, '"A,B"']),
    st.sampled_from(["1", "1700000000000000000", "0", "-5", "9223372036854775808", "1.0", ""]),
    st.sampled_from(["", "0", "7", "18446744073709551615", "18446744073709551616", "-1", "+1"]),
    cells,
    cells,
    st.sampled_from(["", "buy", "sell", "hold"]),
    cells,
    cells,
    cells,
    cells,
)


@given(rows_of_cells)
def test_a_row_that_the_client_takes_is_the_same_tick_here_and_one_with_bad_text_is_none(
    tmp_path_factory: pytest.TempPathFactory, row: tuple[str, ...]
) -> None:
    path = write(tmp_path_factory.mktemp("row") / "ticks.csv", ",".join(row))
    piece = whole(CanonicalFile(path))
    try:
        sent = [as_sent(tick) for tick in read_csv(path)]
    except BadTickFile:
        assert len(piece.bad) + len(piece.symbols) == 1
    else:
        assert as_read(piece) == sent
        assert not piece.bad


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("A,1,2,3", "4 cells; expected 10"),
        ("A,1.5,,9,1,,,,,", "exchange_ts_ns: '1.5'; expected a whole number"),
        ("A,9223372036854775808,,9,1,,,,,", "a stamp of 9223372036854775808; expected 64 bits of nanoseconds"),
        ("A,1,-3,9,1,,,,,", "sequence -3; expected 0 to 18446744073709551615"),
        ("A,1,,9,,,,,,", "size: nothing; expected a number, as the others beside it have"),
        ("A,1,,9,1_0,,,,,", "size: '1_0'; expected a number"),
        ("A,1,,,,,9,10,one,1", "bid_size: 'one'; expected a number"),
        ("A,1,,9,1,hold,,,,", "aggressor: 'hold'; expected 'buy', 'sell' or nothing"),
        ("A,1,,,,buy,9,10,1,1", "aggressor: 'buy'; expected 'buy', 'sell' or nothing, and nothing but a trade's"),
        ('A,1,,"9"x,1,,,,,', "a malformed row"),
    ],
)
def test_a_row_that_is_no_tick_is_named_by_its_line_and_those_around_it_are_read(
    tmp_path: Path, row: str, why: str
) -> None:
    piece = whole(CanonicalFile(write(tmp_path / "t.csv", *quiet(2), row, *quiet(1, 3))))
    assert piece.lines.tolist() == [2, 3, 5]
    (bad,) = piece.bad
    assert bad.line == 4
    assert bad.why.startswith(why)


def test_bytes_that_are_no_text_make_a_bad_row_and_not_a_bad_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", *quiet(1))
    path.write_bytes(path.read_bytes() + b"\xff,1,,9,1,,,,,\n" + quiet(1, 5)[0].encode())
    piece = whole(CanonicalFile(path))
    assert piece.lines.tolist() == [2, 4]
    assert [(bad.line, bad.why) for bad in piece.bad] == [(3, "symbol: bytes that are not UTF-8; expected text")]


def test_a_packed_file_and_one_with_a_byte_order_mark_are_read_as_they_are(tmp_path: Path) -> None:
    plain = write(tmp_path / "t.csv", *quiet(3))
    packed, marked = tmp_path / "u.csv", tmp_path / "v.csv"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert as_read(whole(CanonicalFile(packed))) == as_read(whole(CanonicalFile(plain)))
    assert as_read(whole(CanonicalFile(marked))) == as_read(whole(CanonicalFile(plain)))


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    empty, other, cut = tmp_path / "empty.csv", tmp_path / "other.csv", tmp_path / "cut.csv.gz"
    empty.write_bytes(b"")
    other.write_text("time,price\n1,2\n")
    cut.write_bytes(gzip.compress(write(tmp_path / "t.csv", *quiet(100)).read_bytes())[:-20])
    for path, why in (
        (tmp_path / "absent.csv", "cannot be read"),
        (empty, "found an empty file, expected the header"),
        (other, "found 'time,price', expected the header"),
        (cut, "cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(SourceUnreadable, match=why) as caught:
            list(CanonicalFile(path).pieces())
        assert caught.value.source == str(path)
    with pytest.raises(SourceUnreadable, match="has no line of the form"):
        list(CaptureFile(other).pieces())


def test_a_line_too_long_to_hold_is_a_bad_row_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LINE_BYTES", 200)
    long = line(2, 2, (100, "1" + "0" * 1000))
    piece = whole(CanonicalFile(write(tmp_path / "t.csv", *quiet(1), long, *quiet(1, 3))))
    assert piece.lines.tolist() == [2, 4]
    assert [bad.line for bad in piece.bad] == [3]


def test_a_long_file_comes_in_pieces_that_are_the_whole_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.csv", *quiet(95), "x")
    once = whole(CanonicalFile(path))
    monkeypatch.setattr(recording, "PIECE_ROWS", 10)
    pieces = list(CanonicalFile(path).pieces())
    assert max(len(piece.symbols) for piece in pieces) <= 10
    assert np.concatenate([piece.lines for piece in pieces]).tolist() == once.lines.tolist()
    assert [bad for piece in pieces for bad in piece.bad] == once.bad


@pytest.mark.parametrize("name", [SPOT_BTC, USDM_BTC])
def test_a_capture_has_the_trades_that_training_reads_and_every_quote(name: str) -> None:
    source = CaptureFile(capture_path(name))
    pieces = list(source.pieces())
    expected = capture(name)
    trades = np.concatenate([piece.values[piece.kinds == TRADE, :2] for piece in pieces])
    numbers = np.concatenate([piece.sequences[piece.kinds == TRADE] for piece in pieces])
    assert sorted(numbers.tolist()) == sorted(expected.frame["sequence"].to_list())
    assert trades[np.argsort(numbers), 0].tolist() == expected.frame.sort("sequence")["price"].to_list()
    unstamped = source.passed_over.get("quotes without an exchange time, before the first trade", 0)
    assert sum(int((piece.kinds == QUOTE).sum()) for piece in pieces) + unstamped == expected.quotes
    skipped = {f"trades that are no market trades ({kind})": n for kind, n in expected.skipped_trades.items()}
    assert skipped.items() <= source.passed_over.items()


def test_a_captures_lines_that_are_no_messages_are_named_and_quotes_of_spot_markets_take_the_last_trades_time(
    tmp_path: Path,
) -> None:
    def message(stream: str, **data: object) -> str:
        fields = ",".join(f'"{name}":{value}' for name, value in data.items())
        return f'{START_NS} {{"stream":"a@{stream}","data":{{{fields}}}}}'

    quote = {"s": '"A"', "b": '"9"', "B": '"1"', "a": '"10"', "A": '"1"'}
    trade = {"s": '"A"', "t": 7, "p": '"9.5"', "q": '"1"', "T": 1000, "m": "true"}
    path = tmp_path / "capture"
    path.write_text(
        "\n".join(
            (
                message("bookTicker", **quote),
                message("trade", **trade),
                message("bookTicker", **quote),
                "no stamp at all",
                f"{START_NS} {{broken",
                message("trade", **trade | {"p": '"much"'}),
                message("depth", u=1),
                message("trade", **trade | {"X": '"INSURANCE_FUND"'}),
            )
        )
    )
    source = CaptureFile(path)
    piece = whole(source)
    assert as_read(piece) == [
        ("A", 1_000_000_000, 7, (9.5, 1.0), None),
        ("A", 1_000_000_000, 0, None, (9.0, 10.0, 1.0, 1.0)),
    ]
    assert piece.arrivals_ns.tolist() == [START_NS, 0]
    assert [bad.line for bad in piece.bad] == [4, 5, 6]
    assert source.passed_over == {
        "quotes without an exchange time, before the first trade": 1,
        "messages of other streams": 1,
        "trades that are no market trades (INSURANCE_FUND)": 1,
    }


def test_daily_bars_are_their_table_row_by_row() -> None:
    piece, frame = whole(DailyBars("sp500:2018")), read_bars("sp500:2018")
    assert piece.values[:, 0].tolist() == frame["price"].to_list()
    assert piece.stamps_ns.tolist() == frame["exchange_ts_ns"].to_list()
    assert piece.lines.tolist() == list(range(1, frame.height + 1))


def test_the_columns_are_those_of_the_canonical_file() -> None:

    assert COLUMNS == ticks.COLUMNS
