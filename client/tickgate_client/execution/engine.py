"""What a venue's adapter has to do: `ExecutionEngine`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from tickgate_client.execution.errors import EventsOverrun
from tickgate_client.execution.orders import Fill, NewOrder, OrderEvent, OrderStatus


class ExecutionEngine(ABC):
    """Sends orders to a venue and says what became of them.

    To implement one for a venue, keep these promises:

    - `submit` and `cancel` send and return; they never call a listener. Listeners are called one event at a time, on
      any thread, while no lock is held that `submit` or `cancel` takes.
    - An order's events come in their order: accepted or rejected, then fills, then its end. An order that was filled
      whole has no other end. A fill may be told again with the same `fill_id` and content, never with another.
    - `order`, `open_orders`, `positions` and `fills_since` ask what the venue knows; after a restart they are how the
      gateway learns what it missed.
    - An order id is used once: a second `submit` raises OrderReused, so that nothing is ever sent twice.
    """

    @abstractmethod
    def submit(self, order: NewOrder) -> None:
        """Send an order.

        Raises OrderInvalid or OrderReused, and then nothing was sent; any other error leaves open whether it was.
        """

    @abstractmethod
    def cancel(self, order_id: str) -> None:
        """Ask for an order to be taken back; events tell whether it was. Raises OrderUnknown."""

    @abstractmethod
    def order(self, order_id: str) -> OrderStatus:
        """An order as the venue knows it; raises OrderUnknown."""

    @abstractmethod
    def open_orders(self) -> list[OrderStatus]:
        """Orders that may still be filled."""

    @abstractmethod
    def positions(self) -> Mapping[str, float]:
        """Signed units held at the venue, by symbol; what is not in it is 0."""

    @abstractmethod
    def fills_since(self, exchange_ts_ns: int) -> Iterable[Fill]:
        """Every fill at that time or later, oldest first; more than asked for does no harm."""

    @abstractmethod
    def subscribe(self, listener: Callable[[OrderEvent], None]) -> Callable[[], None]:
        """Have every event from now on told to `listener`; the function that comes back ends that."""


async def events_of(engine: ExecutionEngine, capacity: int = 65_536) -> AsyncIterator[OrderEvent]:
    """The engine's events from now on, for asyncio; closing the iterator ends it.

    Raises EventsOverrun once more than `capacity` events wait: a picture with a hole in it is worse than none.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[OrderEvent] = asyncio.Queue()
    overrun = False

    def take(event: OrderEvent) -> None:
        nonlocal overrun
        if waiting.qsize() < capacity:
            waiting.put_nowait(event)
        else:
            overrun = True

    def hand_over(event: OrderEvent) -> None:
        loop.call_soon_threadsafe(take, event)

    unsubscribe = engine.subscribe(hand_over)
    try:
        while True:
            if overrun:
                raise EventsOverrun(capacity)
            yield await waiting.get()
    finally:
        unsubscribe()
