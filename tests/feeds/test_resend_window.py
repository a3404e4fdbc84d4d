"""Whatever breaks when: each tick is sent at least once, the first time in order, and batches go in order."""

from __future__ import annotations

import asyncio
from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from tests.feeds.market_server import tick

from tickgate.symbol_hash import worker_of
from tickgate_client.feeds.window import MAX_TICKS, Message, Receipts, ResendWindow, messages_of

STEPS = st.lists(st.sampled_from(["publish", "send", "answer", "break"]), max_size=120)


def one_message(receipts: Receipts, number: int) -> Message:
    batch = receipts.open(1)
    batch.waiting = 1
    return Message(batch, [tick("A", number)], [0])


@given(STEPS)
def test_every_message_arrives_at_least_once_first_in_order_and_is_answered_once(steps: list[str]) -> None:
    async def run() -> None:
        window, receipts = ResendWindow(), Receipts()
        arrived: list[int] = []
        answered: list[int] = []
        on_stream: deque[int] = deque()
        published = 0
        # After what was drawn the peer is well, and all goes through.
        for step in [*steps, "break", *["send", "answer"] * len(steps)]:
            if step == "publish":
                published += 1
                window.push(one_message(receipts, published))
            elif step == "send" and window.unsent:
                number = window.next().ticks[0].sequence
                arrived.append(number)
                on_stream.append(number)
            elif step == "answer" and on_stream:
                message = window.answered()
                assert message.ticks[0].sequence == on_stream.popleft()
                answered.append(message.ticks[0].sequence)
            elif step == "break":
                on_stream.clear()
                window.rewind()
            assert window.in_flight == len(on_stream)
            assert len(window) == window.in_flight + window.unsent == published - len(answered)
        assert list(dict.fromkeys(arrived)) == answered == list(range(1, published + 1))

    asyncio.run(run())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_batches_are_acknowledged_in_order_and_only_when_all_of_them_is_answered(
    messages: list[int], data: st.DataObject
) -> None:
    async def run() -> None:
        receipts = Receipts()
        batches = [receipts.open(10) for _ in messages]
        for batch, count in zip(batches, messages, strict=True):
            batch.waiting = count
        order = data.draw(st.permutations([batch for batch in batches for _ in range(batch.waiting)]))
        for batch in order:
            batch.waiting -= 1
            receipts.settle()
            through = [one.receipt.done() for one in batches]
            unanswered = next((at for at, one in enumerate(batches) if one.waiting), len(batches))
            assert through == [at < unanswered for at in range(len(batches))]
            assert receipts.ticks == 10 * through.count(False)

    asyncio.run(run())


@given(st.lists(st.integers(0, 30), min_size=1, max_size=50), st.integers(1, 4))
def test_a_batch_is_split_into_messages_that_have_each_tick_once_in_the_workers_order(
    symbols: list[int], workers: int
) -> None:
    async def run() -> None:
        ticks = [tick(f"S{symbol}", at + 1) for at, symbol in enumerate(symbols)] * 40
        batch = Receipts().open(len(ticks))
        made = messages_of(batch, ticks, range(len(ticks)), lambda symbol: worker_of(symbol, workers))
        for worker in range(workers):
            own = [index for of, message in made if of == worker for index in message.indexes]
            assert own == [at for at, one in enumerate(ticks) if worker_of(one.symbol, workers) == worker]
        for _, message in made:
            assert message.ticks == [ticks[index] for index in message.indexes]
            assert 1 <= len(message.ticks) <= MAX_TICKS

    asyncio.run(run())
