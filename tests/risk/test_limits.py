"""Limits: what is refused, how a file is read, how they are sliced, and what one change of them does."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.risk import GateBench, instrument, limits

from tickgate_server.errors import FieldInvalid
from tickgate_server.risk.limits import SLICED, Limits, LimitsFileInvalid, SymbolLimits, read_limits
from tickgate_server.risk.reasons import Reason

NAN, INF = math.nan, math.inf


def with_nan(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: bad} for name in names for bad in (NAN, -0.1, -INF, "on", None)]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": -1},
        {"version": 1.5},
        {"confidence_threshold": 0.49},
        {"confidence_threshold": 1.01},
        {"confidence_threshold": NAN},
        {"risk_budget": 0.0},
        {"risk_budget": INF},
        {"volatility_floor": 0.0},
        {"volatility_floor": NAN},
        *with_nan(("max_order_size", "max_order_notional", "max_position_size", "max_position_notional")),
        *with_nan(("max_var", "max_gross_exposure", "max_net_exposure", "max_daily_loss", "max_drawdown")),
        *with_nan(("max_open_opposite", "max_repeats", "max_orders_per_s", "max_orders_per_s_symbol")),
        {"max_orders_per_s": 0.0},
        {"max_orders_per_s_symbol": INF},
        {"max_correlation": NAN},
        {"max_correlation": 1.1},
        {"max_correlation": -1.1},
        {"max_price_deviation": NAN},
        {"max_price_deviation": INF},
        {"max_price_deviation": "off"},
        {"max_position_notional": "off"},
        {"confidence_threshold": "off"},
        {"var_method": "monte_carlo"},
        {"var_confidence": 0.5},
        {"var_confidence": 1.0},
        {"var_confidence": NAN},
        {"max_risk_data_age_s": 0.0},
        {"max_risk_data_age_s": INF},
        {"max_risk_data_as_of_age_s": NAN},
        {"allowed_regimes": ("calm",)},
        {"currencies": {"EUR": 0.0}},
        {"currencies": {"EUR": NAN}},
        {"session_rollover_utc_s": 86_400},
        {"session_rollover_utc_s": -1},
        {"limit_offset_bps": NAN},
        {"limit_offset_bps": INF},
        {"limit_offset_bps": 10_000.0},
        {"valid_for_us": 0},
        {"valid_for_us": 2**63},
        {"symbols": {"A": {"max_position_size": NAN}}},
        {"symbols": {"A": {"max_var": 1.0}}},
        {"max_orders": 1},
    ],
    ids=str,
)
def test_limits_that_mean_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        Limits(**changes)


def written(folder: Path, text: str) -> Path:
    path = folder / "limits.toml"
    path.write_text(text)
    return path


def test_a_file_gives_the_limits_that_it_names_and_defaults_for_the_others(tmp_path: Path) -> None:
    found = read_limits(
        written(
            tmp_path,
            """
            version = 7
            max_var = "off"
            max_gross_exposure = 5e5
            allowed_regimes = ["normal"]
            [currencies]
            EUR = 1.25
            [symbols.A]
            max_position_size = 3
            restricted = true
            """,
        )
    )
    assert found == Limits(
        version=7,
        max_var="off",
        max_gross_exposure=5e5,
        allowed_regimes=("normal",),
        currencies={"EUR": 1.25},
        symbols={"A": SymbolLimits(max_position_size=3.0, restricted=True)},
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("max_var = 1.0", "version: expected a number, found none"),
        ("version = 1\nmax_vat = 1.0", "max_vat"),
        ("version = 1\nmax_var = nan", "max_var"),
        ("version = 1\nmax_var = -1", "max_var"),
        ("version = nan", "version"),
        ("version = 1\n[symbols.A]\nmax_order_size = -1", "symbols.A.max_order_size"),
        ("version = 1\nversion = 2", "cannot be read"),
        ("version =", "cannot be read"),
    ],
)
def test_a_file_that_is_not_valid_as_a_whole_is_refused_with_its_key(tmp_path: Path, text: str, why: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(LimitsFileInvalid, match=why) as refused:
        read_limits(path)
    assert refused.value.path == path


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimitsFileInvalid, match="cannot be read"):
        read_limits(tmp_path / "none.toml")
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LimitsFileInvalid, match="cannot be read"):
        read_limits(path)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 64])
def test_the_slices_of_all_workers_add_up_to_the_whole_and_never_above(workers: int) -> None:
    whole = Limits(max_var=25_000.1, max_gross_exposure=1e6 / 3, max_orders_per_s=0.1, max_drawdown="off")
    found = whole.slice_of(workers)
    for name in Limits.model_fields:
        mine, all_of_it = getattr(found, name), getattr(whole, name)
        if name not in SLICED or all_of_it == "off":
            assert mine == all_of_it
        else:
            assert mine * workers == pytest.approx(all_of_it, rel=1e-15)
            assert math.fsum([mine] * workers) <= all_of_it * (1.0 + 1e-15)


def test_every_limit_of_the_whole_desk_has_a_slice() -> None:
    of_the_desk = {"max_var", "max_gross_exposure", "max_net_exposure", "max_orders_per_s"}
    assert set(SLICED) == of_the_desk | {"max_daily_loss", "max_drawdown"}


def test_differences_are_listed_by_name_with_both_values() -> None:
    before = Limits(max_var=25_000.0)
    after = Limits(version=2, max_var=20_000.0, max_correlation="off", symbols={"A": SymbolLimits(restricted=True)})
    lines = before.differences(after)
    assert lines[:3] == ["version: 0 -> 2", "max_var: 25000.0 -> 20000.0", "max_correlation: 0.8 -> 'off'"]
    assert lines[3].startswith("symbols: {} -> {'A': ")
    assert len(lines) == 4
    assert before.differences(before) == []


def test_a_change_of_limits_takes_effect_at_once_and_says_what_it_was() -> None:
    bench = GateBench()
    lines = bench.desk.change_limits(limits(version=1, max_position_size=9.0), reason="less risk", who="ann")
    assert lines == ["version: 0 -> 1", "max_position_size: inf -> 9.0"]
    assert bench.ask(10.0).reason is Reason.POSITION_SIZE
    assert bench.ask(9.0).reason is Reason.APPROVED
    assert bench.desk.limits.max_position_size == 9.0


@pytest.mark.parametrize("version", [3, 4])
def test_a_version_that_does_not_grow_is_refused_and_nothing_changes(version: int) -> None:
    bench = GateBench(found=limits(version=4))
    revision = bench.desk.revision
    with pytest.raises(FieldInvalid, match="version"):
        bench.desk.change_limits(limits(version=version, max_position_size=9.0), reason="less", who="ann")
    assert bench.desk.whole == bench.desk.limits == limits(version=4)
    assert bench.desk.revision == revision
    assert bench.ask(10.0).reason is Reason.APPROVED


def test_the_same_limits_again_change_nothing() -> None:
    bench = GateBench(found=limits(version=4))
    revision = bench.desk.revision
    assert bench.desk.change_limits(limits(version=4), reason="again", who="ann") == []
    assert bench.desk.revision == revision


@pytest.mark.parametrize(("reason", "who"), [("", "ann"), (" \n", "ann"), ("why", ""), ("x" * 201, "ann")])
def test_a_change_of_limits_without_a_reason_or_a_name_is_refused(reason: str, who: str) -> None:
    bench = GateBench()
    with pytest.raises(FieldInvalid, match=r"reason|who"):
        bench.desk.change_limits(limits(version=1, max_position_size=9.0), reason=reason, who=who)
    assert bench.ask(10.0).reason is Reason.APPROVED


@pytest.mark.parametrize(
    ("name", "own", "reason"),
    [
        ("max_order_size", 9.0, Reason.POSITION_ORDER_SIZE),
        ("max_order_notional", 999.0, Reason.POSITION_ORDER_NOTIONAL),
        ("max_position_size", 9.0, Reason.POSITION_SIZE),
        ("max_position_notional", 999.0, Reason.POSITION_NOTIONAL),
        ("restricted", True, Reason.RESTRICTED_SYMBOL),
    ],
)
def test_a_symbols_own_limit_stands_in_place_of_that_of_all(name: str, own: Any, reason: Reason) -> None:
    bench = GateBench()
    bench.set_limits(symbols={"A": {name: own}})
    found = bench.ask(10.0, "A")
    assert found.reason is reason
    assert own is True or own in found.limits
    assert bench.ask(10.0, "B").reason is Reason.APPROVED


def test_a_symbols_own_limit_may_be_wider_than_that_of_all() -> None:
    bench = GateBench(instrument("A", restricted=True), "B")
    bench.set_limits(max_position_size=5.0, symbols={"A": {"max_position_size": 50.0, "restricted": False}})
    assert bench.ask(10.0, "A").reason is Reason.APPROVED
    assert bench.ask(10.0, "B").reason is Reason.POSITION_SIZE


def test_what_a_symbol_does_not_have_of_its_own_is_that_of_all() -> None:
    bench = GateBench()
    bench.set_limits(max_order_size=7.0, symbols={"A": {"max_position_size": 50.0}})
    assert bench.ask(10.0, "A").reason is Reason.POSITION_ORDER_SIZE


def test_a_limit_that_is_taken_off_a_symbol_is_that_of_all_again() -> None:
    bench = GateBench()
    bench.set_limits(symbols={"A": {"max_position_size": 5.0, "restricted": True}})
    bench.set_limits()
    assert bench.ask(10.0, "A").reason is Reason.APPROVED


def test_an_instrument_of_the_restricted_list_is_restricted() -> None:
    assert GateBench(instrument("A", restricted=True), "B").ask(10.0).reason is Reason.RESTRICTED_SYMBOL


def test_a_rate_of_exchange_that_changes_revalues_what_is_held() -> None:
    bench = GateBench(instrument("A", currency="EUR"), "B", found=limits(currencies={"EUR": 2.0}))
    bench.hold("A", 5.0)
    assert bench.desk.portfolio().gross == 1000.0
    bench.set_limits(currencies={"EUR": 3.0})
    assert bench.desk.portfolio().gross == 1500.0
    assert bench.ask(2.0, "B").reason is Reason.APPROVED


def test_limits_of_rates_hold_from_the_change_on() -> None:
    bench = GateBench(found=limits(max_orders_per_s="off", max_orders_per_s_symbol="off"))
    for target in range(1, 40):
        bench.approve(10.0 * target)
    bench.set_limits(max_orders_per_s=1.0, max_orders_per_s_symbol="off")
    bench.approve(400.0)
    assert bench.ask(410.0).reason is Reason.RATE_TOTAL
    bench.pass_time(1.0)
    assert bench.ask(410.0).reason is Reason.APPROVED
