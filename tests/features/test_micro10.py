"""The kernel of `micro10` against a slow reference written from the definitions; batch against stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.real_data import CAPTURES, SPOT_ETH, ticks

from tickgate_server.features import micro10
from tickgate_training.data.daily import NAMES, read_bars
from tickgate_training.data.table import values

SECOND_NS = 1_000_000_000
GAP_NS = 300 * SECOND_NS

Series = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def reference_row(t: NDArray[np.int64], p: NDArray[np.float64], v: NDArray[np.float64]) -> list[float]:
    """Features of the last trade of eleven or more, without a session gap among them."""
    w_p, w_v = p[-11:-1], v[-11:-1]
    returns = np.diff(w_p) / w_p[:-1]
    volume = w_v.sum()
    vwap = (w_p * w_v).sum() / volume if volume > 0 else np.nan
    rose, fell = np.diff(w_p) > 0, np.diff(w_p) < 0
    bought, sold = w_v[1:][rose].sum(), w_v[1:][fell].sum()
    same_sizes = w_v.max() == w_v.min()
    return [
        *((p[-1] - p[-1 - k]) / p[-1 - k] for k in (1, 5, 10)),
        0.0 if volume == 0 else (p[-1] - vwap) / vwap,
        returns.std(),
        (bought - sold) / (bought + sold + 1e-10),
        np.sign(p[-1] - p[-2]),
        (t[-1] - t[-2]) / 1e9,
        (w_p.max() - w_p.min()) / p[-1],
        0.0 if same_sizes else np.clip((v[-1] - w_v.mean()) / w_v.std(), -10, 10),
    ]


def reference(t: NDArray[np.int64], p: NDArray[np.float64], v: NDArray[np.float64], gap_ns: int) -> NDArray[np.float64]:
    out = np.full((t.size, 10), np.nan)
    start = 0
    for i in range(t.size):
        if i > 0 and gap_ns > 0 and t[i] - t[i - 1] > gap_ns:
            start = i
        if i - start >= 10:
            out[i] = reference_row(t[start : i + 1], p[start : i + 1], v[start : i + 1])
    return out


def stream(t: NDArray[np.int64], p: NDArray[np.float64], v: NDArray[np.float64], gap_ns: int) -> NDArray[np.float32]:
    prices, sizes = np.zeros((2, micro10.RING)), np.zeros((2, micro10.RING))
    stamps, counts = np.zeros((2, micro10.RING), np.int64), np.zeros(2, np.int64)
    out = np.full((t.size, 10), 7.0, np.float32)
    for i in range(t.size):
        ready = micro10.push(prices, sizes, stamps, counts, 1, gap_ns, int(t[i]), float(p[i]), float(v[i]), out[i])
        assert ready == bool(np.isfinite(out[i]).all())
    assert counts[0] == 0  # the other symbol's row
    return out


def series(frame_name: str) -> Series:
    frame = read_bars(frame_name) if frame_name in NAMES else ticks(frame_name)
    return values(frame, "exchange_ts_ns"), values(frame, "price"), values(frame, "size")


def steady(prices: list[float], sizes: list[float] | None = None, step_ns: int = SECOND_NS) -> Series:
    stamps = np.arange(1, len(prices) + 1, dtype=np.int64) * step_ns
    return stamps, np.array(prices), np.array(sizes if sizes is not None else [1.0] * len(prices))


@st.composite
def random_series(draw: st.DrawFn) -> Series:
    """Prices on a grid that often stand still, sizes that are often equal or nothing, stamps that often coincide."""
    rows = draw(st.integers(1, 40))
    steps = draw(st.lists(st.integers(-3, 3), min_size=rows, max_size=rows))
    sizes = draw(st.lists(st.sampled_from([0, 1, 1, 2, 500, 1_000_000]), min_size=rows, max_size=rows))
    waits = draw(
        st.lists(st.sampled_from([0, 0, 1_000_000, SECOND_NS, GAP_NS, GAP_NS + 1]), min_size=rows, max_size=rows)
    )
    prices = (10_000 + np.cumsum(steps)) * 0.01
    return np.cumsum(np.array(waits, np.int64)) + SECOND_NS, prices, np.array(sizes) * 1e-3


@given(random_series(), st.sampled_from([0, SECOND_NS, GAP_NS]))
def test_the_kernel_agrees_with_the_reference_on_random_trades(trades: Series, gap_ns: int) -> None:
    expected = reference(*trades, gap_ns)
    np.testing.assert_allclose(micro10.batch(*trades, gap_ns), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", [*CAPTURES, *NAMES])
def test_the_kernel_agrees_with_the_reference_on_real_trades(name: str) -> None:
    t, p, v = (column[:6000] for column in series(name))
    gap_ns = 0 if name in NAMES else GAP_NS
    found = micro10.batch(t, p, v, gap_ns)
    assert np.isfinite(found).all(axis=1).sum() == t.size - 10
    np.testing.assert_allclose(found, reference(t, p, v, gap_ns), rtol=1e-6, atol=1e-12)


@given(random_series(), st.sampled_from([0, GAP_NS]))
def test_batch_and_stream_are_equal_bit_for_bit_on_random_trades(trades: Series, gap_ns: int) -> None:
    assert micro10.batch(*trades, gap_ns).tobytes() == stream(*trades, gap_ns).tobytes()


@pytest.mark.parametrize("name", [SPOT_ETH, "sp500"])
def test_batch_and_stream_are_equal_bit_for_bit_on_real_trades(name: str) -> None:
    trades = series(name)
    assert micro10.batch(*trades, GAP_NS).tobytes() == stream(*trades, GAP_NS).tobytes()


@given(random_series(), random_series())
def test_later_trades_change_no_earlier_vector(first: Series, later: Series) -> None:
    stamps = np.concatenate((first[0], later[0] + first[0][-1]))
    whole = micro10.batch(stamps, np.concatenate((first[1], later[1])), np.concatenate((first[2], later[2])), GAP_NS)
    assert whole[: first[0].size].tobytes() == micro10.batch(*first, GAP_NS).tobytes()


def test_ten_trades_are_not_ready_and_the_eleventh_is() -> None:
    found = micro10.batch(*steady([100.0 + k for k in range(11)]), GAP_NS)
    assert np.isnan(found[:10]).all()
    assert np.isfinite(found[10]).all()


def test_a_longer_silence_starts_the_windows_anew() -> None:
    t, p, v = steady([100.0 + k % 7 for k in range(40)])
    t[20:] += GAP_NS
    found = micro10.batch(t, p, v, GAP_NS)
    assert np.isnan(found[20:30]).all()
    assert found[20:].tobytes() == micro10.batch(t[20:], p[20:], v[20:], GAP_NS).tobytes()


def test_a_silence_of_exactly_the_gap_does_not() -> None:
    t, p, v = steady([100.0 + k % 7 for k in range(30)])
    t[20:] += GAP_NS - SECOND_NS
    assert np.isfinite(micro10.batch(t, p, v, GAP_NS)[10:]).all()


def test_no_silence_counts_with_a_gap_of_zero() -> None:
    t, p, v = steady([100.0 + k % 7 for k in range(30)], step_ns=24 * 3600 * SECOND_NS)
    assert np.isfinite(micro10.batch(t, p, v, 0)[10:]).all()


def test_the_current_trade_is_not_in_the_window() -> None:
    quiet = steady([100.0] * 10 + [150.0], [1.0] * 10 + [99.0])
    row = micro10.batch(*quiet, 0)[10]
    assert row[4] == 0.0  # vol_10
    assert row[5] == 0.0  # flow_imbalance
    assert row[8] == 0.0  # range_10
    assert row[3] == np.float32(0.5)  # vwap_dev


def test_without_volume_in_the_window_vwap_dev_is_zero() -> None:
    row = micro10.batch(*steady([100.0 + k for k in range(11)], [0.0] * 10 + [1.0]), 0)[10]
    assert row[3] == 0.0


def test_equal_sizes_give_a_volume_z_of_zero_where_a_rounded_deviation_would_not() -> None:
    sizes = [0.1] * 10  # whose mean is not 0.1 in float64 summed one by one
    row = micro10.batch(*steady([100.0] * 11, [*sizes, 5.0]), 0)[10]
    assert row[9] == 0.0


@pytest.mark.parametrize(("size", "expected"), [(1e9, 10.0), (2.5, 0.5), (0.0, -2.0)])
def test_volume_z_counts_deviations_and_is_clipped(size: float, expected: float) -> None:
    row = micro10.batch(*steady([100.0] * 11, [1.0, 3.0] * 5 + [size]), 0)[10]
    assert row[9] == np.float32(expected)


def test_a_ratio_that_leaves_float32_makes_the_vector_not_ready() -> None:
    found = micro10.batch(*steady([1e-300] * 10 + [1e300]), 0)
    assert np.isnan(found[10]).all()


def test_arrays_of_different_lengths_are_refused() -> None:
    t, p, v = steady([100.0] * 5)
    with pytest.raises(ValueError, match="5 stamps, 4 prices, 5 sizes"):
        micro10.batch(t, p[:4], v, 0)
