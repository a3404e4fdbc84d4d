"""The kernel of `micro32` against a slow reference written from the definitions; batch against stream; each rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.features.slow_micro32 import GAP_NS, Tick, order_flow, reference
from tests.support.real_data import CAPTURES, SPOT_ETH, ticks

from tickgate_server.features import micro10, micro32
from tickgate_server.features.batch import compute
from tickgate_server.features.schema import MICRO32_FEATURES, FeatureSet
from tickgate_server.features.schema import micro10 as micro10_set
from tickgate_server.features.schema import micro32 as micro32_set
from tickgate_server.features.store import FeatureStore
from tickgate_server.journal.layout import VECTOR_WIDTH
from tickgate_server.ticks import market
from tickgate_training.data.simulator import simulate

SECOND_NS = 1_000_000_000
NOON_NS = 1_723_204_800_000_000_000  # of a UTC day
AT = {name: column for column, name in enumerate(MICRO32_FEATURES)}
# Where two right ways of summing differ in the last bits of what they sum, not of what is left.
ATOL = np.array([1e-6 if "bps" in name else 1e-9 for name in MICRO32_FEATURES[10:]])


def columns(of: list[Tick]) -> dict[str, Any]:
    nan4 = (np.nan,) * 4
    trades = np.array([tick.trade or (np.nan, np.nan) for tick in of]).reshape(-1, 2)
    quotes = np.array([tick.quote or nan4 for tick in of]).reshape(-1, 4)
    names = ("bid", "ask", "bid_size", "ask_size")
    return {
        "exchange_ts_ns": np.array([tick.at_ns for tick in of], np.int64),
        "kind": np.array([tick.kind for tick in of], np.int64),
        "price": trades[:, 0],
        "size": trades[:, 1],
    } | {name: quotes[:, k] for k, name in enumerate(names)}


def batch(of: list[Tick], gap_ns: int = GAP_NS) -> NDArray[np.float32]:
    return compute(micro32_set(gap_ns), **columns(of))


def stream(of: list[Tick], feature_set: FeatureSet) -> NDArray[np.float32]:
    store = FeatureStore(feature_set, 3)
    out = np.empty((len(of), feature_set.width), np.float32)
    for i, tick in enumerate(of):
        store.take(1, tick.kind, tick.at_ns, *(tick.trade or (0.0, 0.0)), *(tick.quote or (0.0,) * 4))
        out[i] = store.vectors[1]
        assert store.ready[1] == np.isfinite(out[i]).all() == (not np.isnan(out[i]).any())
    assert not store.counts[[0, 2]].any()  # the other symbols' rows
    return out


def last(of: list[Tick], gap_ns: int = GAP_NS) -> dict[str, float]:
    """The vector after the last tick, which must be ready."""
    vector = batch(of, gap_ns)[-1]
    assert np.isfinite(vector).all()
    return dict(zip(MICRO32_FEATURES, vector.tolist(), strict=True))


QUOTE = (99.99, 100.01, 3.0, 1.0)


def trades(prices: list[float], sizes: list[float] | None = None, *, step_ns: int = SECOND_NS) -> list[Tick]:
    """A trade a step with the same quote, the last at noon."""
    sizes = sizes or [1.0] * len(prices)
    first_ns = NOON_NS - step_ns * (len(prices) - 1)
    return [Tick(first_ns + k * step_ns, pair, QUOTE) for k, pair in enumerate(zip(prices, sizes, strict=True))]


ZIGZAG = [100.0 + 0.01 * (k % 2) for k in range(101)]


@st.composite
def random_ticks(draw: st.DrawFn, rows: int = 170) -> list[Tick]:
    """Prices on a grid that may stand still, sizes that may be nothing, stamps that coincide, quotes with or without.

    Drawn by a seed: lists of so many ticks are more than hypothesis can draw.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    still, empty, alone, quoted, locked, gap, long_wait = (
        draw(st.sampled_from(shares))
        for shares in (
            (0.0, 0.5, 1.0),  # trades at the price before
            (0.0, 0.3, 1.0),  # of no size
            (0.0, 0.4),  # ticks without a trade
            (0.1, 0.9, 1.0),  # trades with a quote
            (0.0, 0.5),  # quotes that are locked
            (0.0, 0.005),  # session gaps
            (1_000, SECOND_NS, 200 * SECOND_NS),
        )
    )
    waits = [0, 0, 1, long_wait]
    price, at_ns = 10_000, draw(st.sampled_from([1, NOON_NS]))
    quote = (99.99, 100.01, 1.0, 1.0)
    found = []
    for _ in range(rows):
        at_ns += int(rng.choice(waits)) if rng.random() >= gap else GAP_NS + int(rng.integers(2))
        price += 0 if rng.random() < still else int(rng.integers(-3, 4))
        if rng.random() < 0.7:  # else the quote before is stated again
            bid = price - int(rng.integers(0, 3))
            ask = bid + (0 if rng.random() < locked else int(rng.integers(1, 4)))
            sizes = rng.choice([0.0, 1.0, 1.0, 2.5, 1e6], 2)
            quote = (bid * 0.01, ask * 0.01, float(sizes[0]), float(sizes[1]))
        size = 0.0 if rng.random() < empty else float(rng.choice([1e-3, 0.1, 0.1, 2.0, 1e4]))
        if rng.random() < alone:
            found.append(Tick(at_ns, None, quote))
        else:
            found.append(Tick(at_ns, (price * 0.01, size), quote if rng.random() < quoted else None))
    return found


def assert_as_the_reference(of: list[Tick], gap_ns: int) -> int:
    """Compare, and say how many rows were ready."""
    found, expected = batch(of, gap_ns), reference(of, gap_ns)
    assert np.isnan(found).any(axis=1).tolist() == np.isnan(expected).any(axis=1).tolist()
    for column, name in enumerate(MICRO32_FEATURES[10:]):
        np.testing.assert_allclose(
            found[:, 10 + column], expected[:, column], rtol=2e-6, atol=ATOL[column], err_msg=name
        )
    ready = ~np.isnan(found[:, 0])
    ten = compute(micro10_set(gap_ns), **columns(of))
    assert found[ready, :10].tobytes() == ten[ready].tobytes()
    return int(ready.sum())


@settings(max_examples=40)
@given(random_ticks(), st.sampled_from([0, GAP_NS]))
def test_the_kernel_agrees_with_the_reference_on_random_ticks(of: list[Tick], gap_ns: int) -> None:
    assert_as_the_reference(of, gap_ns)


def of_table(name: str, rows: int) -> list[Tick]:
    frame = simulate(rows, 5, 0.2) if name == "simulated" else ticks(name).head(rows)
    return [
        Tick(
            row["exchange_ts_ns"],
            (row["price"], row["size"]),
            None if np.isnan(row["bid"]) else (row["bid"], row["ask"], row["bid_size"], row["ask_size"]),
        )
        for row in frame.iter_rows(named=True)
    ]


@pytest.mark.parametrize("name", ["simulated", *CAPTURES])
def test_the_kernel_agrees_with_the_reference_on_whole_tables(name: str) -> None:
    assert assert_as_the_reference(of_table(name, 700), GAP_NS) >= 550


@settings(max_examples=40)
@given(random_ticks(), st.sampled_from([0, GAP_NS]))
def test_batch_and_stream_are_equal_bit_for_bit_on_random_ticks(of: list[Tick], gap_ns: int) -> None:
    for feature_set in (micro10_set(gap_ns), micro32_set(gap_ns)):
        found = compute(feature_set, **columns(of))
        assert found.tobytes() == stream(of, feature_set).tobytes()


def test_batch_and_stream_are_equal_bit_for_bit_on_real_trades() -> None:
    of = of_table(SPOT_ETH, 20_000)
    assert batch(of).tobytes() == stream(of, micro32_set()).tobytes()


def test_the_batch_of_a_table_needs_no_kinds() -> None:
    of = of_table("simulated", 400)
    given_columns = columns(of)
    del given_columns["kind"]
    assert compute(micro32_set(), **given_columns).tobytes() == batch(of).tobytes()


@settings(max_examples=25)
@given(random_ticks(), random_ticks(60))
def test_later_ticks_change_no_earlier_vector(first: list[Tick], later: list[Tick]) -> None:
    moved = [replace(tick, at_ns=tick.at_ns + first[-1].at_ns) for tick in later]
    assert batch(first + moved)[: len(first)].tobytes() == batch(first).tobytes()


# -- when a vector is ready -----------------------------------------------------------------------------------------


def test_a_hundred_trades_are_not_ready_and_the_next_is() -> None:
    found = batch(trades(ZIGZAG))
    assert np.isnan(found[:100]).all()
    assert np.isfinite(found[100]).all()


def test_without_any_quote_no_vector_is_ever_ready() -> None:
    assert np.isnan(batch([replace(tick, quote=None) for tick in trades(ZIGZAG * 3)])).all()


def test_each_of_the_last_51_trades_needs_a_quote_in_force() -> None:
    of = [replace(tick, quote=None) for tick in trades(ZIGZAG * 2)]
    of[120] = replace(of[120], quote=QUOTE)  # in force from here on
    found = np.isfinite(batch(of)).all(axis=1)
    assert found.tolist() == [k >= 170 for k in range(202)]


def test_a_quote_older_than_the_session_gap_is_in_force_no_more() -> None:
    of = [replace(tick, quote=None) for tick in trades(ZIGZAG * 6)]
    of[0] = replace(of[0], quote=QUOTE)
    found = np.isfinite(batch(of)).all(axis=1)
    assert found.tolist() == [100 <= k <= 300 for k in range(606)]  # a second each, 300 s the gap
    assert np.isfinite(batch(of, 0)[100:]).all()


def test_a_longer_silence_starts_everything_anew() -> None:
    of = trades([*ZIGZAG, *ZIGZAG, 101.0])
    anew = [replace(tick, at_ns=tick.at_ns + GAP_NS + 203 * SECOND_NS) for tick in of]
    found = batch(of + anew)
    assert np.isfinite(found[100:203]).all()
    assert np.isnan(found[203:303]).all()
    assert found[203:].tobytes() == batch(anew).tobytes()


def test_a_silence_of_exactly_the_gap_does_not() -> None:
    of = trades([*ZIGZAG, *ZIGZAG])
    moved = [replace(tick, at_ns=tick.at_ns + GAP_NS - SECOND_NS) for tick in of[150:]]
    assert np.isfinite(batch(of[:150] + moved)[100:]).all()


def test_numbers_beyond_double_precision_make_vectors_not_ready_until_they_left_the_windows() -> None:
    of = trades(ZIGZAG * 3)
    for k in (110, 111):
        of[k] = replace(of[k], trade=(100.0, 1.7e308), quote=(99.99, 100.01, 1.7e308, 1.7e308))
    ready = np.isfinite(batch(of)).all(axis=1)
    assert ready[100:110].all()
    assert not ready[112]
    assert ready[220:].all()


def test_a_price_a_thousand_orders_of_magnitude_away_leaves_the_windows_too() -> None:
    of = trades(ZIGZAG * 3)
    of[110] = replace(of[110], trade=(1e-300, 1.0))
    ready = np.isfinite(batch(of)).all(axis=1)
    assert not ready[111]
    assert ready[220:].all()


# -- the quote that a trade joins -----------------------------------------------------------------------------------

OTHER = (99.97, 99.99, 2.0, 6.0)


def test_a_quote_of_a_trades_own_stamp_is_not_before_it_and_is_before_the_next() -> None:
    of = trades(ZIGZAG)
    at_ns = of[-1].at_ns
    alone = replace(of[-1], quote=None)
    assert last([*of[:-1], Tick(at_ns, None, OTHER), alone]) == last(of)
    assert last([*of[:-1], Tick(at_ns - 1, None, OTHER), alone])["queue_imbalance"] == pytest.approx(-0.5)
    then = Tick(at_ns + 1, (100.0, 1.0), None)
    assert last([*of[:-1], Tick(at_ns, None, OTHER), alone, then])["queue_imbalance"] == pytest.approx(-0.5)


def test_a_trades_own_quote_takes_the_place_of_one_that_waits_under_its_stamp() -> None:
    of = trades(ZIGZAG)
    waits = Tick(of[-1].at_ns, None, (99.0, 101.0, 7.0, 7.0))
    with_other = replace(of[-1], quote=OTHER)
    assert last([*of[:-1], waits, with_other]) == last([*of[:-1], with_other])


def test_stating_the_quote_in_force_again_changes_nothing() -> None:
    of = trades([*ZIGZAG, 100.0])
    of[60:] = [replace(tick, quote=OTHER) for tick in of[60:]]
    sparse = [replace(tick, quote=None) for tick in of]
    sparse[0], sparse[60] = of[0], of[60]
    repeated = [tick for tick in of for tick in (tick, Tick(tick.at_ns, None, tick.quote))]
    assert last(of) == last(sparse) == last(repeated)
    assert last(of)["ofi_50"] != 0.0


def test_a_quote_alone_changes_no_vector() -> None:
    of = trades(ZIGZAG)
    found = batch([*of, Tick(NOON_NS + 1, None, OTHER), Tick(NOON_NS + 2, None, QUOTE)])
    assert found[-1].tobytes() == found[-2].tobytes() == found[-3].tobytes()


# -- values by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quote", "flow"),
    [
        ((99.0, 101.0, 5.0, 4.0), 0.0),  # the same again
        ((99.0, 101.0, 7.0, 4.0), 2.0),  # the bid grew by 2
        ((99.0, 101.0, 5.0, 7.0), -3.0),  # the ask grew by 3
        ((99.5, 101.0, 6.0, 4.0), 6.0),  # a better bid: all of it
        ((98.5, 101.0, 6.0, 4.0), -5.0),  # the bid is gone: all that it was
        ((99.0, 100.5, 5.0, 9.0), -9.0),  # a better ask
        ((99.0, 101.5, 5.0, 9.0), 4.0),  # the ask is gone
        ((99.5, 101.5, 6.0, 9.0), 10.0),  # both up
    ],
)
def test_order_flow_of_an_update_by_hand(quote: tuple[float, float, float, float], flow: float) -> None:
    before = (99.0, 101.0, 5.0, 4.0)
    assert order_flow(quote, before) == flow
    of = [replace(tick, quote=before) for tick in trades(ZIGZAG)]
    of[-1] = replace(of[-1], quote=quote)
    depth = (quote[2] + quote[3]) / 2
    assert last(of)["ofi_10"] == last(of)["ofi_50"] == pytest.approx(flow / depth, rel=1e-6)


def test_order_flow_reaches_back_ten_and_fifty_trades() -> None:
    for back, ten, fifty in ((9, True, True), (10, False, True), (49, False, True), (50, False, False)):
        of = trades(ZIGZAG)
        at = len(of) - 1 - back
        of[at:] = [replace(tick, quote=OTHER) for tick in of[at:]]
        found = last(of)
        assert (found["ofi_10"] != 0.0, found["ofi_50"] != 0.0) == (ten, fifty), back


def test_features_of_the_quote_by_hand() -> None:
    of = trades(ZIGZAG)
    of[-1] = replace(of[-1], trade=(100.03, 1.0), quote=(99.98, 100.02, 3.0, 1.0))
    found = last(of)
    assert found["queue_imbalance"] == 0.5
    assert found["microprice_dev_bps"] == pytest.approx(1.0)  # (3 x 100.02 + 1 x 99.98) / 4 = 100.01
    assert found["quoted_spread_bps"] == pytest.approx(4.0)
    assert found["effective_spread_bps"] == pytest.approx(6.0)
    assert found["quote_position"] == pytest.approx(1.5)
    assert found["mid_ret_10"] == pytest.approx(0.0, abs=1e-12)


def test_signs_are_held_over_unchanged_prices() -> None:
    of = trades([*ZIGZAG, 100.02, 100.02, 100.02])
    assert last(of)["trade_sign"] == 1.0
    assert last([*of, *trades([100.01])[-1:]])["trade_sign"] == -1.0
    assert last(trades([100.0] * 101))["trade_sign"] == 0.0


def test_a_bouncing_price_has_rolls_spread_and_kyles_slope_by_hand() -> None:
    found = last(trades(ZIGZAG, [2.0] * 101))
    # d alternates +0.01, -0.01 with mean 0: c = -0.0001, and the price moves by 0.01 for 2 of size.
    assert found["roll_spread_bps"] == pytest.approx(2 * 0.01 / 100.0 * 1e4, rel=1e-6)
    assert found["kyle_lambda_bps"] == pytest.approx(0.01 / 100.0 * 1e4, rel=1e-6)
    r = np.log(100.01 / 100.0)
    assert found["realised_vol_100"] == pytest.approx(10.0 * r, rel=1e-6)
    assert found["bipower_vol_100"] == pytest.approx(np.sqrt(np.pi / 2 * 100) * r, rel=1e-6)
    assert found["jump_share_100"] == 0.0  # BV is above RV
    assert found["ewma_vol_30s"] == pytest.approx(r, rel=1e-6)
    assert found["signed_volume_50"] == 0.0
    assert found["trade_rate_100"] == 1.0
    assert (found["day_sin"], found["day_cos"]) == (pytest.approx(0.0, abs=1e-6), -1.0)
    assert found["amihud_100"] == 0.0  # each block ends where it began


def test_amihuds_ratio_by_hand() -> None:
    found = last(trades([100.0] * 91 + [110.0] * 10, [1.0] * 91 + [2.0] * 10))
    assert found["amihud_100"] == pytest.approx(0.1 * 0.1 / (110.0 * 20) * 1e6, rel=1e-6)  # one block of ten moved


def test_one_jump_in_a_still_price_is_all_of_its_variation() -> None:
    found = last(trades([100.0] * 60 + [101.0] * 41))
    assert found["jump_share_100"] == 1.0
    assert found["bipower_vol_100"] == 0.0


def test_means_decay_by_half_in_their_half_lives() -> None:
    of = trades([100.0] * 99 + [101.0, 101.0], [0.0] * 99 + [1.0, 1.0])
    of[-1] = replace(of[-1], at_ns=of[-2].at_ns + 10 * SECOND_NS)
    down = replace(of[-1], trade=(100.0, 1.0))
    assert last([*of[:-1], down])["ewma_signed_volume_10s"] == pytest.approx((0.5 - 1.0) / 1.5)


# -- where a definition is undefined --------------------------------------------------------------------------------


def test_a_market_that_stands_still_has_zeros_and_no_nan() -> None:
    found = last(trades([100.0] * 101, [0.0] * 101, step_ns=0))
    zeros = {name for name, value in found.items() if value == 0.0}
    assert zeros >= {
        "signed_volume_50",
        "ofi_10",
        "ofi_50",
        "kyle_lambda_bps",
        "amihud_100",
        "roll_spread_bps",
        "realised_vol_100",
        "bipower_vol_100",
        "jump_share_100",
        "ewma_vol_30s",
        "ewma_signed_volume_10s",
        "mid_ret_10",
    }
    assert found["trade_rate_100"] == pytest.approx(1e5)


def test_a_price_that_rises_with_equal_sizes_has_no_slope() -> None:
    assert last(trades([100.0 + 0.01 * k for k in range(102)]))["kyle_lambda_bps"] == 0.0


def test_a_quote_without_sizes_leans_to_no_side() -> None:
    found = last([replace(tick, quote=(99.99, 100.01, 0.0, 0.0)) for tick in trades(ZIGZAG)])
    assert (found["queue_imbalance"], found["microprice_dev_bps"], found["ofi_50"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("price", "position"), [(100.0, 0.0), (100.01, 5.0), (99.99, -5.0)])
def test_a_locked_quote_has_no_spread_and_a_side(price: float, position: float) -> None:
    of = [replace(tick, quote=(100.0, 100.0, 1.0, 1.0)) for tick in trades([*ZIGZAG[:-1], price])]
    found = last(of)
    assert (found["quoted_spread_bps"], found["quote_position"]) == (0.0, position)


def test_ratios_that_explode_are_clipped() -> None:
    of = trades([100.0, 100.5] * 51, [1e-300] * 102)
    of[-2] = replace(of[-2], quote=(1.0, 1e6, 1e9, 1e9))
    of[-1] = replace(of[-1], trade=(1e5, 1e-300), quote=(1.0, 1.01, 0.0, 1e-9))
    found = last(of)
    assert found["amihud_100"] == 1e6
    assert found["effective_spread_bps"] == 10_000.0
    assert found["quote_position"] == 5.0
    assert abs(found["ofi_50"]) <= 1000.0


# -- what calls it --------------------------------------------------------------------------------------------------


def test_the_kinds_of_tick_are_those_of_the_market() -> None:
    assert (micro32.TRADE, micro32.QUOTE) == (market.TRADE, market.QUOTE)


def test_the_set_has_32_features_and_room_in_a_journals_record() -> None:
    assert micro32_set().width == micro32.WIDTH == 32 <= VECTOR_WIDTH
    assert len(set(MICRO32_FEATURES)) == 32
    assert micro32_set().features[:10] == micro10_set().features
    assert micro32_set().warm_up_trades == 101
    assert micro32_set().schema_id != micro32_set(0).schema_id != micro10_set(0).schema_id


def test_a_batch_of_micro10_is_its_own_whatever_quotes_stand_between() -> None:
    of = trades([*ZIGZAG, 100.02])
    t, p, v = (columns(of)[name] for name in ("exchange_ts_ns", "price", "size"))
    alone = micro10.batch(t, p, v, GAP_NS)
    assert compute(micro10_set(), **columns(of)).tobytes() == alone.tobytes()
    mixed = [Tick(1, None, QUOTE), *(tick for one in of for tick in (one, Tick(one.at_ns, None, OTHER)))]
    found = compute(micro10_set(), **columns(mixed))
    assert np.isnan(found[0]).all()
    assert found[1::2].tobytes() == found[2::2].tobytes() == alone.tobytes()


def test_an_empty_table_has_no_rows() -> None:
    for feature_set in (micro10_set(), micro32_set()):
        assert compute(feature_set, **columns([])).shape == (0, feature_set.width)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"price": np.ones(2)}, "lengths differ: 3 exchange_ts_ns, 2 price"),
        ({"ask": None}, "a quote is whole or absent: without ask"),
        ({"kind": np.array([1, 4, 1])}, r"kind\[1\]: expected 1, 2 or 3, got 4"),
        ({"exchange_ts_ns": np.array([5, 4, 6])}, r"exchange_ts_ns\[1\]: expected not below the one before, got 4"),
        ({"exchange_ts_ns": np.array([0, 4, 6])}, r"exchange_ts_ns\[0\]: expected above 0, got 0"),
        ({"price": np.array([1.0, np.nan, 1.0])}, r"price\[1\]: expected a finite number > 0, got nan"),
        ({"size": np.array([1.0, 1.0, -1.0])}, r"size\[2\]: expected a finite number >= 0, got -1.0"),
        ({"ask_size": np.array([1.0, np.inf, 1.0])}, r"ask_size\[1\]: expected a finite number >= 0, got inf"),
        ({"ask": np.array([1.0, 99.0, 99.0])}, r"bid\[0\]: expected not above its ask, got 99.99"),
        ({"kind": np.array([3, 1, 2]), "bid": np.array([np.nan, 1, 1])}, r"bid\[0\]: expected a finite number > 0"),
    ],
)
def test_a_batch_names_the_row_that_is_wrong(changes: dict[str, NDArray[np.generic] | None], message: str) -> None:
    good = columns(trades([100.0] * 3))
    del good["kind"]
    with pytest.raises(ValueError, match=message):
        compute(micro32_set(), **(good | changes))
