"""The live view for a terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tickgate_server.observer.live.view import DeskView, FigureView, HealthView, ModelView, View

_STATES = {"ACTIVE": "bold green", "REDUCING": "bold yellow", "HALTED": "bold red"}
# Of a limit: from here on it is told.
_CLOSE = 0.8
Cell = str | Text


def frame(found: View, address: str, lost: str = "") -> RenderableType:
    """One screen.

    Args:
        found: What is shown.
        address: Whose it is.
        lost: Why it is not of now; empty where it is.
    """
    parts: list[RenderableType] = [_head(found, address)]
    if lost:
        parts.append(Text(f"{lost}; trying again, these figures are old", "bold red"))
    parts += [
        _beside(_stages(found), _rejections(found)),
        _models(found),
        _beside(_portfolio(found.desk), _signals(found)),
        _beside(_health(found.health, found.desk), _regimes(found.desk)),
    ]
    return Group(*parts)


def waiting(address: str, lost: str) -> RenderableType:
    """The screen before anything was read."""
    return Text(f"tickgate top  http://{address}\n{lost}; trying again" if lost else f"tickgate top  http://{address}")


def _head(found: View, address: str) -> Text:
    states = found.desk.states
    head = Text.assemble(("tickgate ", "bold"), found.version or "-", f"  http://{address}  ")
    if len(set(states.values())) == 1:
        state = next(iter(states.values()))
        head.append(state, _STATES.get(state, ""))
    for worker, state in states.items() if len(set(states.values())) > 1 else ():
        head.append(f"{worker} ")
        head.append(f"{state} ", _STATES.get(state, ""))
    if not states:
        head.append("trading state -")
    over = f"over {found.seconds:.1f} s" if found.seconds is not None else "no rates yet"
    head.append(f"  {count(found.rate)} requests/s, {count(found.failed)} not OK/s  ({over})")
    return head


def _beside(left: Table, right: Table) -> Table:
    both = Table.grid(padding=(0, 2), expand=False)
    both.add_row(left, right)
    return both


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], texts: int = 1) -> Table:
    """A table whose first columns are texts, and whose others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < texts else "right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _stages(found: View) -> Table:
    rows = [(one.stage, time_of(one.p50_s), time_of(one.p99_s), time_of(one.p999_s)) for one in found.stages]
    return _table("Latency", ("stage (from buckets)", "p50", "p99", "p99.9"), rows)


def _rejections(found: View) -> Table:
    rows = [(one.name, count(one.per_s), count(one.total)) for one in found.rejections]
    heads = (f"reason ({count(found.rejected)}/s in all)", "/s", "total")
    return _table("Rejections", heads, rows or [("none", "", "")])


def _signals(found: View) -> Table:
    rows = [(one.name, count(one.per_s), count(one.total)) for one in found.signals]
    return _table("Signals", ("action", "/s", "total"), rows or [("-", "-", "-")])


def _models(found: View) -> Table:
    heads = ("model", "version", "aliases", "engine", "state", "features off", "/s", "p99", "budget")
    rows = [_model(one) for one in found.models] or [("none", *[""] * (len(heads) - 1))]
    if found.more_models:
        rows.append((f"and {found.more_models} more", *[""] * (len(heads) - 1)))
    return _table("Models", heads, rows, texts=6)


def _model(one: ModelView) -> tuple[Cell, ...]:
    state = Text("not monitored", "dim")
    if one.loaded is False:
        state = Text("refused", "bold red")
    elif one.degraded is not None:
        state = Text("degraded", "bold red") if one.degraded else Text("healthy", "green")
    off: Cell = "-"
    if one.not_as_in_training is not None:
        kinds = [f"{count(number)} {kind}" for kind, number in one.not_as_in_training.items() if number != 0.0]
        off = Text(", ".join(kinds), "yellow") if kinds else "none"
    late = one.p99_s is not None and one.budget_s is not None and one.p99_s > one.budget_s
    return (
        one.model,
        one.version,
        ", ".join(one.aliases) or "-",
        one.engine or "-",
        state,
        off,
        count(one.per_s),
        Text(time_of(one.p99_s), "bold red" if late else ""),
        time_of(one.budget_s),
    )


def _portfolio(desk: DeskView) -> Table:
    workers = f", {desk.measured} of {desk.workers} workers summed" if desk.workers > 1 else ""
    rows = [(one.name, amount(one.value), amount(one.limit), _used(one)) for one in desk.figures]
    rows.append(("symbols held", count(desk.positions), "", ""))
    rows.append(("age of the figures", time_of(desk.age_s), "", ""))
    return _table("Portfolio", (f"figure{workers}", "value", "limit", "used"), rows)


def _used(one: FigureView) -> Cell:
    if one.used is None:
        return "-"
    style = "bold red" if one.used > 1.0 else "yellow" if one.used > _CLOSE else ""
    return Text(f"{100.0 * one.used:.1f} %", style)


def _regimes(desk: DeskView) -> Table:
    rows = [(name.replace("_", " "), count(symbols)) for name, symbols in desk.regimes.items()]
    return _table("Regimes", ("regime", "symbols"), rows or [("-", "-")])


def _health(health: HealthView, desk: DeskView) -> Table:
    fresh = "-" if desk.risk_data_fresh is None else "fresh" if desk.risk_data_fresh else "not fresh"
    rows: list[tuple[Cell, Cell]] = [
        ("observer lag", time_of(health.observer_lag_s)),
        ("journal lag, records", count(health.journal_lag_records)),
        ("lost records", Text(count(health.lost_records), "bold red" if health.lost_records else "")),
        ("journal free space", free(health.journal_free_bytes)),
        ("waiting for a model", count(health.queued)),
        ("risk data, age of newest bar", f"{fresh}, {time_of(desk.risk_data_age_s)}"),
    ]
    store = health.store
    if store is None:
        rows.append(("store (L2)", "-"))
    else:
        rows.append(("store (L2)", _connected(up=store.up, connected=store.connected)))
        rows.append(("store: waiting, dropped", f"{count(store.queued)}, {count(store.dropped)}"))
        rows.append(("store: lag", time_of(store.lag_s)))
    rows += [(f"alert, {severity}", Text(name, "bold red")) for name, severity in health.alerts]
    return _table("Health", ("", ""), rows)


def _connected(*, up: bool | None, connected: bool | None) -> Text:
    if not up:
        return Text("-" if up is None else "silent", "bold red")
    return Text("connected", "green") if connected else Text("Redis does not answer", "bold red")


def count(value: float | None) -> str:
    """A count or a rate; `-` where there is none, as everywhere here."""
    if value is None:
        return "-"
    if value == int(value) or abs(value) >= 100.0:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10.0 else f"{value:.1f}"


def amount(value: float | None) -> str:
    """Money."""
    return "-" if value is None else f"{value:,.2f}" if abs(value) < 1_000.0 else f"{value:,.0f}"


def free(value: float | None) -> str:
    """Bytes of a file system."""
    return "-" if value is None else f"{value / 2**30:,.1f} GiB"


def time_of(seconds: float | None) -> str:
    """A duration in the unit that suits it."""
    if seconds is None:
        return "-"
    for below, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (300.0, 1.0, "s"), (172_800.0, 1 / 3600, "h")):
        if abs(seconds) < below:
            number = seconds * factor
            return f"{number:.0f} {unit}" if abs(number) >= 100.0 else f"{number:.3g} {unit}"
    return f"{seconds / 86_400.0:,.1f} d"
