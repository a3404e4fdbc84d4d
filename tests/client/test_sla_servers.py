"""Breaches of real servers: stopped for 50 ms, stopped past the deadline, killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Event

import pytest
from tests.support.messages import START_NS, tick
from tests.support.packages import publish_logistic
from tests.support.processes import START_UP_S, Served, served

from tickgate.v1 import market_pb2
from tickgate_client import (
    AsyncSignalClient,
    CallError,
    DeadlineExceeded,
    ServerUnavailable,
    SignalClient,
    TradingHeld,
)
from tickgate_client.sla import Breach, BreachCause, Objective, SlaMonitor

STALL_US = 50_000.0
CLEAN_S = 0.5
LATE_S = 30.0  # threads of a busy machine


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Served]:
    with served(repository, "--clock", "replay") as running:
        yield running


@pytest.fixture
def ticks() -> Callable[[], market_pb2.Tick]:
    """The next tick of a symbol of the test's own."""
    symbol = f"SLA-{os.urandom(4).hex()}"
    numbers = count(1)

    def following() -> market_pb2.Tick:
        number = next(numbers)
        message = tick(symbol, START_NS + number, sequence=number, trade=(100.0, 1.0)).tick
        assert message.symbol == symbol
        return message

    return following


class Told:
    """What the monitor's callbacks said."""

    def __init__(self) -> None:
        self.entered: list[Breach] = []
        self.left: list[Breach] = []
        self.ended = Event()

    def enter(self, breach: Breach) -> None:
        self.entered.append(breach)

    def leave(self, breach: Breach) -> None:
        self.left.append(breach)
        self.ended.set()


def promise(stall_us: float = STALL_US) -> Objective:
    # On a busy machine a good call may take long: only what the tests do is to be a breach.
    return Objective("signals", limit_us=stall_us, target=0.5, stall_us=stall_us, burn_rules=(), clean_s=CLEAN_S)


def until_clear(monitor: SlaMonitor, ask: Callable[[], object]) -> None:
    """Wait until orders pass: a slow start of a busy machine is a breach of its own."""
    due = time.monotonic() + START_UP_S
    while not monitor.may_add_risk:
        ask()
        assert time.monotonic() < due, monitor.alarm()


def recover(monitor: SlaMonitor, told: Told, ask: Callable[[], object]) -> None:
    """Ask until the breach ends; no order passes before."""
    due = time.monotonic() + START_UP_S
    told.ended.clear()
    while not (told.ended.is_set() and monitor.may_add_risk):
        ask()
        held = not monitor.may_add_risk
        assert held or told.ended.wait(START_UP_S), "an order passed and the breach did not end"
        assert time.monotonic() < due, monitor.alarm()


def test_a_stall_of_50_ms_is_called_while_it_lasts_and_no_order_follows_the_late_answer(
    server: Served, ticks: Callable[[], market_pb2.Tick]
) -> None:
    told = Told()

    def resume(breach: Breach) -> None:
        # The stall lasts as long as the monitor needs to call it: the breach was called before any answer came.
        told.enter(breach)
        os.kill(server.process.process.pid, signal.SIGCONT)

    with (
        SlaMonitor([promise()], late_after_s=LATE_S, on_enter=resume, on_leave=told.leave) as monitor,
        SignalClient(server.address, latency=monitor, deadline_s=30.0) as client,
    ):
        client.connect(START_UP_S)
        client.predict(ticks())
        until_clear(monitor, lambda: client.predict(ticks()))
        for _ in range(3):
            told.entered.clear()
            os.kill(server.process.process.pid, signal.SIGSTOP)
            answer = client.predict(ticks())  # comes: the monitor itself let the server go on
            with pytest.raises(TradingHeld) as caught:
                monitor.before_order()
            assert "LATENCY_STALL" in caught.value.causes
            assert answer.symbol
            assert [breach.causes for breach in told.entered] == [(BreachCause.LATENCY_STALL,)]
            recover(monitor, told, lambda: client.predict(ticks()))
            lasted_s = (told.left[-1].ended_ns - told.left[-1].began_ns) / 1e9  # type: ignore[operator]
            assert lasted_s >= CLEAN_S
            monitor.before_order()
    worst_us = monitor.percentiles().max_us
    assert worst_us >= STALL_US


def test_a_server_that_stands_still_holds_the_next_order_though_the_monitor_has_not_looked_since(
    server: Served, ticks: Callable[[], market_pb2.Tick]
) -> None:
    monitor = SlaMonitor([promise()], late_after_s=1e6)  # never started: it looks when it is told to
    with SignalClient(server.address, latency=monitor, deadline_s=START_UP_S) as client:
        client.connect(START_UP_S)

        def ask() -> None:
            client.predict(ticks())
            monitor.look()

        ask()
        until_clear(monitor, ask)
        os.kill(server.process.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded):
                client.predict(ticks(), deadline_s=STALL_US / 1e6 * 1.5)
        finally:
            os.kill(server.process.process.pid, signal.SIGCONT)
        assert monitor.standings()[0].breach is None, "nobody has looked"
        with pytest.raises(TradingHeld, match="LATENCY_STALL"):
            monitor.before_order()


def test_the_asyncio_client_is_held_while_its_call_is_still_outstanding(
    server: Served, ticks: Callable[[], market_pb2.Tick]
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        told = Told()

        def enter(breach: Breach) -> None:
            told.enter(breach)
            loop.call_soon_threadsafe(called.set)

        with SlaMonitor([promise()], late_after_s=LATE_S, on_enter=enter, on_leave=told.leave) as monitor:
            async with AsyncSignalClient(server.address, latency=monitor, deadline_s=30.0) as client:
                await client.connect(START_UP_S)
                await client.predict(ticks())
                due = time.monotonic() + START_UP_S
                while not monitor.may_add_risk:
                    await client.predict(ticks())
                    assert time.monotonic() < due, monitor.alarm()
                called.clear()
                os.kill(server.process.process.pid, signal.SIGSTOP)
                try:
                    outstanding = asyncio.create_task(client.predict(ticks()))
                    async with asyncio.timeout(START_UP_S):
                        await called.wait()
                    assert not outstanding.done()
                    with pytest.raises(TradingHeld, match="LATENCY_STALL"):
                        monitor.before_order()
                finally:
                    os.kill(server.process.process.pid, signal.SIGCONT)
                assert (await outstanding).symbol

    asyncio.run(run())


def test_a_killed_server_holds_and_one_in_its_place_ends_the_breach(
    repository: Path, ticks: Callable[[], market_pb2.Tick], tmp_path: Path
) -> None:
    told = Told()
    listen = f"unix:{tmp_path}/signals"
    with (
        SlaMonitor([promise(stall_us=20e6)], late_after_s=LATE_S, on_enter=told.enter, on_leave=told.leave) as monitor,
        SignalClient(listen, latency=monitor, deadline_s=10.0) as client,
    ):
        with served(repository, "--clock", "replay", "--listen", listen) as first:
            client.connect(START_UP_S)
            client.predict(ticks())
            monitor.before_order()
            first.process.process.kill()
            first.process.process.wait(START_UP_S)
            with pytest.raises(ServerUnavailable):
                client.predict(ticks())
            with pytest.raises(TradingHeld, match="SERVER_LOST"):
                monitor.before_order()
        with served(repository, "--clock", "replay", "--listen", listen):
            client.connect(START_UP_S)

            def ask() -> None:
                try:
                    client.predict(ticks())
                except CallError:
                    assert not monitor.may_add_risk

            recover(monitor, told, ask)
            monitor.before_order()
    assert told.entered[0].causes == (BreachCause.SERVER_LOST,)
