"""Events of an engine for asyncio."""

import asyncio
import subprocess
import sys
from contextlib import aclosing

import pytest
from tests.execution.test_paper_broker import S, opened, order

from tickgate_client.execution import EventsOverrun, OrderAccepted, OrderFilled, events_of


def test_events_come_in_their_order_also_from_another_thread() -> None:
    venue = opened()

    async def run() -> list[object]:
        async with aclosing(events_of(venue.broker)) as events:
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)  # it has subscribed
            venue.broker.submit(order())
            await asyncio.to_thread(venue.broker.advance, 2 * S)
            return [await first, await anext(events)]

    assert [type(event) for event in asyncio.run(run())] == [OrderAccepted, OrderFilled]
    assert venue.broker._listeners == [venue.said.append]


def test_a_reader_that_is_too_slow_is_told_that_it_missed_some() -> None:
    venue = opened()

    async def run() -> None:
        async with aclosing(events_of(venue.broker, capacity=2)) as events:
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            for number in range(3):
                venue.broker.submit(order(number))
            venue.broker.advance(2 * S)
            await first
            await asyncio.sleep(0)
            await anext(events)

    with pytest.raises(EventsOverrun) as missed:
        asyncio.run(run())
    assert missed.value.capacity == 2


def test_importing_the_package_imports_neither_numpy_nor_grpc() -> None:
    code = "import sys, tickgate_client.execution; print({'numpy', 'grpc', 'google.protobuf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
