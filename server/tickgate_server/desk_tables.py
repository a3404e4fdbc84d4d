"""What the desk's verbs print: tables for people, JSON for programs."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from tickgate.v1 import DeskState, GetLimitsResponse, OrderState, Portfolio, Side, TradingState
from tickgate_server.rpc.admin_client import Worker

# How much of a limit is used, by its name.
_USED = {
    "max_gross_exposure": lambda portfolio: portfolio.gross,
    "max_net_exposure": lambda portfolio: abs(portfolio.net),
    "max_var": lambda portfolio: portfolio.value_at_risk,
    "max_daily_loss": lambda portfolio: max(0.0, -(portfolio.realised + portfolio.unrealised)),
    "max_drawdown": lambda portfolio: portfolio.drawdown,
}
_NOTHING = "-"


def state_line(desk: DeskState) -> str:
    """The trading state, who set it, why and when."""
    since = f" since {_time(desk.since_ns, '%Y-%m-%d %H:%M:%S')} UTC" if desk.since_ns else ""
    return f"{_state(desk)}{since}, by {desk.who or 'nobody'}: {desk.reason or 'no reason given'}"


def number(value: float) -> str:
    """A size or a price: as many digits as it has."""
    if math.isnan(value):
        return _NOTHING
    return f"{round(value, 8) + 0.0:,.8f}".rstrip("0").rstrip(".")


def money(value: float) -> str:
    """An amount."""
    return _NOTHING if math.isnan(value) else f"{round(value, 2) + 0.0:,.2f}"  # no minus before nothing


def show_portfolios(console: Console, found: Sequence[tuple[Worker, Portfolio]]) -> None:
    """Positions, open orders, and what they come to."""
    several = len(found) > 1
    currency = found[0][1].base_currency
    for worker, portfolio in found:
        _print(console, f"{f'worker {worker.index}: ' if several else ''}{state_line(portfolio.desk)}")
    rows = [(worker, one) for worker, portfolio in found for one in portfolio.positions]
    if rows:
        names = (
            "open buys",
            "open sells",
            "average cost",
            "mark",
            "in",
            f"realised {currency}",
            f"unrealised {currency}",
        )
        table = _table("symbol", "position", *names, *(["worker"] if several else []), text={"symbol", "in"})
        for worker, one in sorted(rows, key=lambda row: row[1].symbol):
            sizes = (one.filled, one.open_buys, one.open_sells, one.average_cost, one.mark)
            cells = [one.symbol, *map(number, sizes), one.currency, money(one.realised), money(one.unrealised)]
            table.add_row(*cells, *([str(worker.index)] if several else []))
        console.print(table)
    else:
        _print(console, "no positions")
    orders = [one for _, portfolio in found for one in portfolio.orders]
    if orders:
        texts = ("symbol", "side", "state", "ends")
        table = _table("order", "symbol", "side", "size", "remaining", "state", "ends", text=set(texts))
        for order in orders:
            side = Side.Name(order.side).removeprefix("SIDE_").lower()
            state = OrderState.Name(order.state).removeprefix("ORDER_STATE_").lower()
            ends = f"{_time(order.expires_ns, '%H:%M:%S')} UTC" if order.expires_ns else "when it is reported"
            size, remaining = number(order.size), number(order.remaining)
            table.add_row(str(order.order_id), order.symbol, side, size, remaining, state, ends)
        console.print(table)
    table = _table(f"total in {currency}", "", text={f"total in {currency}"})
    for name in ("gross", "net", "realised", "unrealised", "drawdown", "value_at_risk"):
        table.add_row(name.replace("_", " "), money(_total(found, name)))
    console.print(table)
    if several:
        _print(
            console,
            "Totals are sums over the workers. That of value at risk is no less than the whole portfolio's: hedges"
            " across workers do not count.",
        )
    _say_what_is_amiss(console, found)


def portfolio_line(worker: Worker, portfolio: Portfolio) -> str:
    """A portfolio on one line."""
    now = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
    sums = {"gross": portfolio.gross, "net": portfolio.net, "VaR": portfolio.value_at_risk}
    sums |= {"realised": portfolio.realised, "unrealised": portfolio.unrealised}
    amounts = "  ".join(f"{name} {money(value)}" for name, value in sums.items())
    counts = f"positions {len(portfolio.positions)}  orders {len(portfolio.orders)}"
    return f"{now}  worker {worker.index}  {_state(portfolio.desk)}  {counts}  {amounts}"


def show_limits(console: Console, found: Sequence[tuple[Worker, GetLimitsResponse, Portfolio]]) -> None:
    """Trading state, limits, slices and what is used of them."""
    several = len(found) > 1
    for worker, _, portfolio in found:
        _print(console, f"{f'worker {worker.index}: ' if several else ''}{state_line(portfolio.desk)}")
    rows = limit_rows(found)
    names = ["whole", *(["slice of a worker", "sum of slices"] if several else []), "used", "%"]
    table = _table("limit", *names, *(["fullest worker %"] if several else []))
    for row in rows:
        if row["limit"] == "version":  # said below
            continue
        slices = [_limit(row["slice"]), _limit(row["sum"])] if several else []
        fullest = [_percent(row["fullest"])] if several else []
        used = _NOTHING if row["used"] is None else money(row["used"])
        whole = "no limit" if row["whole"] is None else _limit(row["whole"])
        table.add_row(row["limit"], whole, *slices, used, _percent(row["share"]), *fullest)
    console.print(table)
    workers = found[0][1].workers
    if workers > 1:
        _print(
            console,
            f"Each of {workers} workers holds 1/{workers} of the limits that have a slice, so together they never pass"
            " the whole. That is conservative: one worker denies at its slice though others have room, hedges across"
            " workers do not count, and the sum of the workers' parametric VaR is no less than the whole portfolio's.",
        )
    else:
        _print(console, "One process holds every limit whole.")
    versions = {response.version for _, response, _ in found}
    if len(versions) > 1:
        named = ", ".join(f"worker {worker.index} {response.version}" for worker, response, _ in found)
        _print(
            console,
            f"The workers hold different versions of the limits: {named}. `tickgate risk reload` makes them one.",
        )
    elif versions != {0}:
        _print(console, f"Version {versions.pop()} of the limits file.")
    _say_what_is_amiss(console, [(worker, portfolio) for worker, _, portfolio in found])


def limit_rows(found: Sequence[tuple[Worker, GetLimitsResponse, Portfolio]]) -> list[dict[str, Any]]:
    """Every limit: whole, of a worker, summed, and what is used of it; None where there is nothing to say."""
    slices = [json.loads(response.limits_json) for _, response, _ in found]
    sliced = set(found[0][1].sliced)
    rows = []
    for name, whole in json.loads(found[0][1].whole_json).items():
        values = [one[name] for one in slices]
        cut = name in sliced and all(map(_is_number, values))
        used = [_USED[name](portfolio) for _, _, portfolio in found] if name in _USED else None
        bounded = used is not None and _is_number(whole) and whole > 0
        rows.append(
            {
                "limit": name,
                "whole": whole,
                "slice": (values[0] if len(set(values)) == 1 else values) if cut else None,
                "sum": sum(values) if cut else None,
                "used": None if used is None else _known(sum(used)),
                "share": _known(sum(used) / whole) if used is not None and bounded else None,
                "fullest": _known(max(map(_share, used, values))) if used is not None and bounded else None,
            }
        )
    return rows


def portfolio_json(worker: Worker, portfolio: Portfolio) -> str:
    """One worker's portfolio on a line."""
    return json.dumps(_portfolio_tree(worker, portfolio))


def portfolios_json(found: Sequence[tuple[Worker, Portfolio]]) -> str:
    """Every worker's portfolio."""
    return json.dumps({"workers": [_portfolio_tree(worker, portfolio) for worker, portfolio in found]}, indent=2)


def limits_json(found: Sequence[tuple[Worker, GetLimitsResponse, Portfolio]]) -> str:
    """Trading state and limits of every worker, and what is used of them in all."""
    workers = [
        {
            "worker": worker.index,
            "address": worker.address,
            "version": response.version,
            "desk": _tree(portfolio.desk),
            "limits": json.loads(response.limits_json),
        }
        for worker, response, portfolio in found
    ]
    return json.dumps({"limits": limit_rows(found) if found else [], "workers": workers}, indent=2)


def _portfolio_tree(worker: Worker, portfolio: Portfolio) -> dict[str, Any]:
    return {"worker": worker.index, "address": worker.address, "portfolio": _tree(portfolio)}


def _tree(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _total(found: Sequence[tuple[Worker, Portfolio]], name: str) -> float:
    return math.fsum(getattr(portfolio, name) for _, portfolio in found)


def _share(used: float, limit: Any) -> float:
    return used / limit if _is_number(limit) and limit > 0 else math.nan


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{share:.1%}".removesuffix("%")


def _state(desk: DeskState) -> str:
    return TradingState.Name(desk.state).removeprefix("TRADING_STATE_")


def _time(since_epoch_ns: int, form: str) -> str:
    return datetime.fromtimestamp(since_epoch_ns / 1e9, UTC).strftime(form)


def _limit(value: Any) -> str:
    """A limit as JSON has it."""
    if value is None:
        return _NOTHING
    if _is_number(value):
        return number(float(value))
    if isinstance(value, dict):
        value = [f"{key} {_own(inner)}" for key, inner in value.items()]
    if isinstance(value, list):
        return "\n".join(_limit(one) for one in value) or "none"
    return str(value)


def _own(value: Any) -> str:
    """What one symbol or currency has of its own."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_limit(inner)}" for key, inner in value.items() if inner is not None)
    return _limit(value)


def _say_what_is_amiss(console: Console, found: Sequence[tuple[Worker, Portfolio]]) -> None:
    stale = [str(worker.index) for worker, portfolio in found if not portfolio.risk_data_fresh]
    if stale:
        where = f" at worker{'s' * (len(stale) > 1)} {', '.join(stale)}" if len(found) > 1 else ""
        _print(
            console, f"Risk data are missing or too old{where}: only reducing orders pass the checks that need them."
        )
    degraded = sorted({model for _, portfolio in found for model in portfolio.degraded_models})
    if degraded:
        _print(console, f"Degraded models, which no order comes from until they are reopened: {', '.join(degraded)}")


def _print(console: Console, text: str) -> None:
    """A line as it is: no markup in what people gave as a reason."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(*columns: str, text: set[str] | None = None) -> Table:
    table = Table()
    for index, column in enumerate(columns):
        left = column in text if text is not None else index == 0
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    return table
