"""The adapter that the page shows is whole: it keeps the promises of an engine, on a venue that calls back."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.execution.scripted_desk import ScriptedDesk
from tests.execution.test_gateway import LATE_S, OPTIONS, SETTINGS, Signals, tick

from tickgate_client import SignalClient
from tickgate_client.execution import (
    ExecutionEngine,
    NewOrder,
    OrderGateway,
    OrderInvalid,
    OrderReused,
    OrderState,
    OrderUnknown,
    Outbox,
    Schedule,
    Side,
)
from tickgate_client.paper.config import read_config

PAGE = (Path(__file__).parents[2] / "docs" / "execution.md").read_text()
S = 1_000_000_000


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@dataclass
class Venue:
    """A venue's client: keeps what it is sent until a test has it answer."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=dict)
    done: list[dict[str, Any]] = field(default_factory=list)
    on_report: Callable[[dict[str, Any]], None] = lambda _report: None

    def send(self, **order: Any) -> None:
        self.sent.append(order)

    def cancel(self, client_order_id: str) -> None:
        self.tell(client_order_id, "canceled")

    def positions(self) -> dict[str, float]:
        return dict(self.held)

    def executions(self, since_ns: int) -> list[dict[str, Any]]:
        return [one for one in self.done if one["time_ns"] >= since_ns]

    def tell(self, client_order_id: str, kind: str, **more: Any) -> None:
        self.on_report({"client_order_id": client_order_id, "type": kind, "time_ns": S, **more})

    def trade(self, at: int, quantity: float) -> None:
        """Fill some of the order that was sent at that place."""
        order = self.sent[at]
        before = sum(one["quantity"] for one in self.done if one["client_order_id"] == order["client_order_id"])
        report = {
            "client_order_id": order["client_order_id"],
            "type": "trade",
            "time_ns": S,
            "execution_id": f"x{len(self.done)}",
            "quantity": quantity,
            "price": order["price"],
            "fee": 0.0,
            "cumulative": before + quantity,
        }
        self.done.append(report)
        signed = quantity if order["buy"] else -quantity
        self.held[order["symbol"]] = self.held.get(order["symbol"], 0.0) + signed
        self.on_report(report)


@pytest.fixture
def made() -> tuple[ExecutionEngine, Venue]:
    names: dict[str, Any] = {}
    exec(next(block for block in blocks("python") if "class VenueEngine" in block), names)  # noqa: S102 - our own page
    venue = Venue()
    return names["VenueEngine"](venue), venue


@pytest.fixture
def server() -> Iterator[ScriptedDesk]:
    found = ScriptedDesk().start()
    yield found
    found.stop()


def test_the_pages_adapter_keeps_an_engines_promises(made: tuple[ExecutionEngine, Venue]) -> None:
    engine, venue = made
    heard: list[Any] = []
    unsubscribe = engine.subscribe(heard.append)
    order = NewOrder("1-1", "A", Side.BUY, 3.0, 101.0, S)
    engine.submit(order)
    with pytest.raises(OrderReused):
        engine.submit(order)
    with pytest.raises(OrderInvalid):
        engine.submit(NewOrder("1-2", "A", Side.BUY, 0.0, 101.0, S))
    with pytest.raises(OrderUnknown):
        engine.cancel("9-9")
    venue.tell("1-1", "new")
    venue.trade(0, 2.0)
    assert (engine.order("1-1").state, engine.order("1-1").remaining) == (OrderState.WORKING, 1.0)
    engine.cancel("1-1")
    assert [type(event).__name__ for event in heard] == ["OrderAccepted", "OrderFilled", "OrderCancelled"]
    assert engine.open_orders() == []
    assert [fill.fill_id for fill in engine.fills_since(0)] == ["x0"]
    unsubscribe()
    unsubscribe()


def test_a_gateway_works_with_the_pages_adapter(
    made: tuple[ExecutionEngine, Venue], server: ScriptedDesk, tmp_path: Path
) -> None:
    engine, venue = made
    server.signals.answer = Signals({"size": 3.0})
    with (
        Outbox(tmp_path / "box") as outbox,
        grpc.insecure_channel(server.target, options=OPTIONS) as channel,
        SignalClient(server.target, deadline_s=LATE_S) as client,
        OrderGateway(client, engine, outbox, channel, settings=SETTINGS) as gateway,
    ):
        assert gateway.ask(tick(S)).approval is not None
        assert venue.sent[0]["good_for_ns"] <= 5 * S
        venue.tell("1-1", "new")
        venue.trade(0, 1.0)
        venue.trade(0, 2.0)
        assert gateway.reporter.flush(LATE_S)
        assert gateway.reconcile().agrees
        assert server.positions() == {"A": 3.0}
        assert server.states(1) == ["ACCEPTED"]


def test_the_pages_plan_is_a_schedule(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(next(block for block in blocks("python") if "def plan" in block), names)  # noqa: S102 - our own page

    class Asked:
        size = 1.0

    assert isinstance(names["plan"](Asked()), Schedule)
    path = tmp_path / "paper.toml"
    path.write_text(blocks("toml")[0])
    assert read_config(path).plan.slices == 4
