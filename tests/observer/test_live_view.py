"""The live view, worked out from expositions written by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from tickgate_server.observer.live.history import POINTS, SAMPLE_S, WINDOW_S, History, Window
from tickgate_server.observer.live.reading import Change, Reading, quantile
from tickgate_server.observer.live.view import MOST_MODELS, MOST_REASONS, view

LATENCY = "tickgate_stage_latency_seconds"


def reading(at_s: float, *lines: str) -> Reading:
    return Reading(text_string_to_metric_families("\n".join(lines) + "\n"), at_s)


def histogram(labels: str, *cumulative: int) -> list[str]:
    """Buckets of 1 ms, 2 ms, 4 ms and beyond."""
    bounds = ("0.001", "0.002", "0.004", "+Inf")
    pairs = zip(bounds, cumulative, strict=True)
    lines = [f'{LATENCY}_bucket{{{labels},le="{bound}"}} {count}' for bound, count in pairs]
    return [f"# TYPE {LATENCY} histogram", *lines]


def requests(**by_code: float) -> list[str]:
    return [f'tickgate_requests_total{{code="{code}"}} {count}' for code, count in by_code.items()]


def test_rates_are_what_was_counted_between_the_readings_over_their_seconds() -> None:
    before = reading(10.0, *requests(OK=100, INTERNAL=3))
    found = view(reading(14.0, *requests(OK=300, INTERNAL=5)), before)
    assert (found.seconds, found.rate, found.failed) == (4.0, 50.5, 0.5)


def test_a_label_that_is_new_began_at_zero() -> None:
    found = view(reading(12.0, *requests(OK=10, INTERNAL=4)), reading(10.0, *requests(OK=10)))
    assert (found.rate, found.failed) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (requests(OK=90, INTERNAL=8), requests(OK=100, INTERNAL=3)),  # one of the two went back
        (requests(OK=900), requests(OK=100, INTERNAL=3)),  # one is gone
        (requests(OK=math.nan, INTERNAL=4), requests(OK=100, INTERNAL=3)),
        (requests(OK=200), []),
        ([], requests(OK=100)),
        ([], []),
    ],
    ids=["went back", "gone", "NaN", "not there before", "not there now", "never there"],
)
def test_a_rate_that_cannot_be_known_is_none(now: list[str], before: list[str]) -> None:
    assert view(reading(2.0, *now), reading(1.0, *before)).rate is None


def test_one_reading_alone_tells_no_rate_and_no_latency() -> None:
    now = reading(1.0, *requests(OK=5), *histogram('stage="total"', 1, 2, 3, 4))
    for before in (None, now):
        found = view(now, before)
        assert (found.seconds, found.rate, found.stages[-1].p99_s) == (None, None, None)


def test_quantiles_are_of_the_interval_and_linear_within_their_bucket() -> None:
    labels = 'stage="total",model="m",version="1"'
    before = reading(0.0, *histogram(labels, 1000, 1000, 1000, 1000))
    # Between the two: 50 up to 1 ms, 40 up to 2 ms, 10 up to 4 ms.
    found = view(reading(1.0, *histogram(labels, 1050, 1090, 1100, 1100)), before)
    total = found.stages[-1]
    assert total.stage == "total"
    assert total.p50_s == pytest.approx(0.001)
    assert total.p99_s == pytest.approx(0.002 + 0.002 * 9 / 10)
    assert total.p999_s == pytest.approx(0.002 + 0.002 * 9.9 / 10)
    assert found.stages[0].p50_s is None, "nothing is said of waiting"


def test_a_stage_is_over_all_versions_and_a_model_over_its_own() -> None:
    loaded = [f'tickgate_model_loaded{{model="m",version="{number}",engine="forest"}} 1' for number in (1, 2)]
    counts = [f'tickgate_predictions_total{{model="m",version="{number}"}} {10 * number}' for number in (1, 2)]

    def lines(fast: int, slow: int) -> list[str]:
        of_1 = histogram('stage="total",model="m",version="1"', fast, fast, fast, fast)
        return [*of_1, *histogram('stage="total",model="m",version="2"', 0, 0, slow, slow)[1:]]

    before = reading(0.0, *lines(0, 0), *loaded, *[line.rsplit(" ", 1)[0] + " 0" for line in counts])
    found = view(reading(1.0, *lines(300, 100), *loaded, *counts), before)
    assert found.stages[-1].p50_s == pytest.approx(0.001 * 200 / 300)
    assert [(one.version, one.per_s) for one in found.models] == [("2", 20.0), ("1", 10.0)]
    assert [one.p99_s for one in found.models] == [pytest.approx(0.002 + 0.002 * 0.99), pytest.approx(0.00099)]


def test_beyond_the_last_bound_a_quantile_is_that_bound() -> None:
    assert quantile(0.9, [(1.0, 10.0), (math.inf, 100.0)]) == 1.0


@pytest.mark.parametrize(
    "buckets",
    [[], [(math.inf, 4.0)], [(1.0, 4.0)], [(1.0, 0.0), (math.inf, 0.0)]],
    ids=["none", "inf", "open", "empty"],
)
def test_what_is_no_histogram_or_holds_nothing_has_no_quantile(buckets: list[tuple[float, float]]) -> None:
    assert quantile(0.5, buckets) is None


def test_a_histogram_whose_bound_is_no_number_tells_nothing() -> None:
    lines = [*histogram('stage="total"', 1, 1, 1, 1), f'{LATENCY}_bucket{{stage="total",le="x"}} 1']
    zeros = [*histogram('stage="total"', 0, 0, 0, 0), f'{LATENCY}_bucket{{stage="total",le="x"}} 0']
    assert Change(reading(1.0, *lines), reading(0.0, *zeros)).quantiles(LATENCY, (0.5,)) == (None,)


@given(
    values=st.lists(st.floats(1e-7, 9.9), min_size=1, max_size=80),
    shares=st.lists(st.sampled_from([0.01, 0.5, 0.9, 0.99, 0.999]), min_size=2, max_size=2).map(sorted),
)
def test_a_quantile_falls_in_the_bucket_of_the_exact_one_and_grows_with_its_share(
    values: list[float], shares: list[float]
) -> None:
    bounds = [m * 10.0**e for e in range(-6, 1) for m in (1, 2, 5)] + [10.0]
    held = np.array(values)
    buckets = [(bound, float((held <= bound).sum())) for bound in [*bounds, math.inf]]
    low, high = (quantile(share, buckets) for share in shares)
    assert low is not None
    assert high is not None
    assert low <= high
    for share, found in zip(shares, (low, high), strict=True):
        exact = float(np.quantile(held, share, method="inverted_cdf"))
        place = int(np.searchsorted(bounds, exact))
        assert (bounds[place - 1] if place else 0.0) <= found <= bounds[place]


def test_rejections_are_all_reasons_but_approved_the_most_frequent_now_first() -> None:
    def decisions(**by_reason: int) -> list[str]:
        return [f'tickgate_decisions_total{{reason="{reason}"}} {count}' for reason, count in by_reason.items()]

    old = {f"R{number}": 10 + number for number in range(MOST_REASONS + 3)}
    before = reading(0.0, *decisions(APPROVED=50, NEVER=0, **old))
    found = view(reading(2.0, *decisions(APPROVED=90, NEVER=0, **{**old, "R2": 52, "R0": 11})), before)
    assert found.rejected == 20.5
    assert len(found.rejections) == MOST_REASONS
    assert [(one.name, one.per_s, one.total) for one in found.rejections[:3]] == [
        ("R2", 20.0, 52.0),
        ("R0", 0.5, 11.0),
        ("R10", 0.0, 20.0),
    ]


def test_signals_are_by_action() -> None:
    before = reading(0.0, 'tickgate_signals_generated_total{action="BUY"} 1')
    found = view(reading(2.0, 'tickgate_signals_generated_total{action="BUY"} 4'), before)
    assert [(one.name, one.per_s, one.total) for one in found.signals] == [("BUY", 1.5, 4.0)]


def test_a_model_has_its_aliases_budget_health_and_features() -> None:
    found = view(
        reading(
            0.0,
            'tickgate_model_loaded{model="m",version="1",engine="forest"} 1',
            'tickgate_model_loaded{model="m",version="2",engine=""} 0',
            'tickgate_alias_version{model="m",alias="champion"} 1',
            'tickgate_alias_version{model="m",alias="canary"} 1',
            'tickgate_model_latency_budget_seconds{model="m",version="1"} 0.002',
            'tickgate_model_degraded{model="m",version="1"} 1',
            'tickgate_features_not_as_in_training{model="m",version="1",kind="drifted"} 2',
            'tickgate_features_not_as_in_training{model="m",version="1",kind="stuck"} 0',
        ),
        None,
    )
    first, second = found.models
    assert (first.aliases, first.engine, first.loaded, first.budget_s) == (
        ("canary", "champion"),
        "forest",
        True,
        0.002,
    )
    assert (first.degraded, first.not_as_in_training) == (True, {"drifted": 2.0, "stuck": 0.0})
    assert (second.loaded, second.degraded, second.not_as_in_training, second.budget_s) == (False, None, None, None)


def test_no_more_models_are_shown_than_a_screen_has_room_for() -> None:
    lines = [f'tickgate_model_loaded{{model="m",version="{n}",engine="plain"}} 1' for n in range(1, MOST_MODELS + 6)]
    found = view(reading(0.0, *lines), None)
    assert [one.version for one in found.models] == [str(n) for n in range(1, MOST_MODELS + 1)]
    assert found.more_models == 5


def test_the_portfolio_is_summed_over_workers_and_held_against_the_limits_of_the_desk() -> None:
    found = view(
        reading(
            0.0,
            *[f'tickgate_journal_segments{{worker="worker-{n}"}} 1' for n in range(3)],
            'tickgate_portfolio_gross_exposure{worker="worker-0"} 300',
            'tickgate_portfolio_gross_exposure{worker="worker-1"} 200',
            'tickgate_portfolio_profit{worker="worker-0"} -40',
            'tickgate_portfolio_profit{worker="worker-1"} 15',
            'tickgate_portfolio_drawdown{worker="worker-0"} 60',
            'tickgate_portfolio_value_at_risk{worker="worker-0"} 7',
            'tickgate_portfolio_value_at_risk{worker="worker-1"} NaN',
            'tickgate_risk_limit{limit="max_gross_exposure"} 2000',
            'tickgate_risk_limit{limit="max_daily_loss"} 100',
            'tickgate_risk_limit{limit="max_var"} 50',
            'tickgate_regime_symbols{worker="worker-0",regime="normal"} 3',
            'tickgate_regime_symbols{worker="worker-1",regime="normal"} 4',
            'tickgate_risk_data_fresh{worker="worker-0"} 1',
            'tickgate_risk_data_fresh{worker="worker-1"} 0',
            'tickgate_trading_state{worker="worker-0",state="ACTIVE"} 1',
            'tickgate_trading_state{worker="worker-0",state="HALTED"} 0',
            'tickgate_trading_state{worker="worker-1",state="ACTIVE"} 0',
            'tickgate_trading_state{worker="worker-1",state="HALTED"} 1',
        ),
        None,
    ).desk
    figures = {one.name: (one.value, one.limit, one.used) for one in found.figures}
    assert figures["gross"] == (500.0, 2000.0, 0.25)
    assert figures["P&L"] == (-25.0, 100.0, 0.25)
    assert figures["drawdown"] == (60.0, None, None), "a limit that is off has no share"
    assert figures["VaR"] == (None, 50.0, None), "one worker's is not known"
    assert figures["net"] == (None, None, None)
    assert (found.measured, found.workers, found.regimes) == (2, 3, {"normal": 7.0})
    assert found.risk_data_fresh is False
    assert found.states == {"worker-0": "ACTIVE", "worker-1": "HALTED"}


def test_a_profit_uses_nothing_of_the_loss_limit() -> None:
    found = view(reading(0.0, "tickgate_portfolio_profit 30", 'tickgate_risk_limit{limit="max_daily_loss"} 100'), None)
    assert next(one for one in found.desk.figures if one.name == "P&L").used == 0.0


def test_health_has_the_worst_of_the_workers_and_the_store_where_there_is_one() -> None:
    lines = (
        "tickgate_observer_lag_seconds 0.25",
        "tickgate_journal_lag_records 12",
        'tickgate_journal_free_bytes{worker="worker-0"} 5e9',
        'tickgate_journal_free_bytes{worker="worker-1"} 4e9',
        'tickgate_alerts_firing{alertname="Halted",severity="critical"} 1',
    )
    found = view(reading(0.0, *lines), None).health
    assert (found.observer_lag_s, found.journal_lag_records, found.journal_free_bytes) == (0.25, 12.0, 4e9)
    assert (found.store, found.lost_records) == (None, None)
    assert found.alerts == (("Halted", "critical"),)
    store = view(
        reading(
            0.0,
            "tickgate_store_up 1",
            "tickgate_store_connected 0",
            'tickgate_store_queue_depth{kind="vectors"} 3',
            'tickgate_store_queue_depth{kind="states"} 4',
            'tickgate_store_lag_seconds{worker="worker-0"} NaN',
        ),
        None,
    ).health.store
    assert store is not None
    assert (store.up, store.connected, store.queued, store.dropped, store.lag_s) == (True, False, 7.0, None, None)


def test_an_empty_exposition_has_no_number_in_its_view() -> None:
    def leaves(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for one in value.values() for leaf in leaves(one)]
        if isinstance(value, list):
            return [leaf for one in value for leaf in leaves(one)]
        return [value]

    shown = json.loads(json.dumps(view(reading(0.0), None).as_dict(), allow_nan=False))
    assert [leaf for leaf in leaves(shown) if isinstance(leaf, int | float)] == [0, 0, 0], (
        "workers, measured, more models"
    )


def test_a_window_spans_ten_seconds_of_readings() -> None:
    window = Window()
    spans = [window.add(reading(float(second))).seconds for second in range(15)]
    assert spans == [None, *[float(min(second, WINDOW_S)) for second in range(1, 15)]]


def test_a_window_over_a_gap_is_from_the_last_reading_before_it() -> None:
    window = Window()
    window.add(reading(0.0))
    assert window.add(reading(60.0)).seconds == 60.0
    assert window.add(reading(61.0)).seconds == 61.0
    assert window.add(reading(70.0)).seconds == 10.0


def test_history_keeps_ten_minutes_and_no_more() -> None:
    counted = iter(range(10_000))

    def collect() -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily("tickgate_observer_lag_seconds", "", value=next(counted))]

    history = History(collect)
    assert json.loads(history.as_json())["view"] is None
    for _ in range(POINTS + 5):
        history.sample()
    said = json.loads(history.as_json())
    assert (len(said["points"]), POINTS * SAMPLE_S) == (POINTS, 600.0)
    assert said["view"]["health"]["observer_lag_s"] == POINTS + 4
    assert said["points"][-1]["rate"] is None
    assert said["points"][0]["at_s"] <= said["points"][-1]["at_s"]
