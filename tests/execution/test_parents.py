"""Child orders keep to their approval, whatever the venue does with them."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_client.execution import (
    Approval,
    ApprovalExceeded,
    CancelRefused,
    Fill,
    NewOrder,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderState,
    ParentOrder,
    RejectReason,
    Side,
    at_once,
    twap,
)

APPROVAL = Approval(
    order_id=7,
    symbol="A",
    side=Side.BUY,
    size=10.0,
    limit_price=101.0,
    approved_ns=1_000,
    expires_ns=2_000,
    reducing=False,
    arrival_price=100.0,
)


def fill(child: NewOrder, size: float, remaining: float, number: int = 1) -> OrderFilled:
    return OrderFilled(Fill(f"{child.order_id}/{number}", child.order_id, "A", child.side, size, 100.0), remaining)


def child_of(parent: ParentOrder, now_ns: int = 1_000) -> NewOrder:
    child = parent.next_child(now_ns)
    assert child is not None
    return child


def test_a_child_has_the_limit_price_and_what_is_left_of_the_validity() -> None:
    child = child_of(ParentOrder(APPROVAL, at_once(10.0), "w1-"), 1_400)
    assert child == NewOrder("w1-7-1", "A", Side.BUY, 10.0, 101.0, 600)


def test_children_come_as_the_schedule_has_them_due() -> None:
    parent = ParentOrder(APPROVAL, twap(10.0, 1_000, 4, lot=1.0))
    sizes = []
    for now_ns in range(1_000, 2_100, 50):
        child = parent.next_child(now_ns)
        if child is not None:
            sizes.append((now_ns, child.size))
            parent.apply(OrderAccepted(child.order_id, now_ns))
    assert sizes == [(1_000, 2.0), (1_250, 3.0), (1_500, 2.0), (1_750, 3.0)]


def test_nothing_is_sent_once_the_approval_has_expired_and_then_it_is_over() -> None:
    parent = ParentOrder(APPROVAL, at_once(10.0))
    assert parent.next_child(2_000) is None
    assert parent.end is OrderState.EXPIRED


def test_a_schedule_beyond_the_approval_is_refused() -> None:
    with pytest.raises(ApprovalExceeded) as refused:
        ParentOrder(APPROVAL, at_once(10.5))
    assert (refused.value.approved, refused.value.asked) == (10.0, 10.5)


def test_a_cancel_that_was_asked_for_frees_nothing_until_the_venue_says_so() -> None:
    parent = ParentOrder(APPROVAL, at_once(10.0))
    child = child_of(parent)
    parent.stop()
    assert (parent.committed, parent.end) == (10.0, None)
    parent.apply(fill(child, 4.0, 6.0))
    parent.apply(OrderCancelled(child.order_id, 1_500))
    assert (parent.committed, parent.filled, parent.end) == (4.0, 4.0, OrderState.CANCELLED)


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (OrderRejected("7-1", RejectReason.VENUE_REFUSED, "", 1_100), OrderState.REJECTED),
        (OrderCancelled("7-1", 1_100), OrderState.CANCELLED),
        (OrderExpired("7-1", 2_000), OrderState.EXPIRED),
        (CancelRefused("7-1", OrderState.WORKING, 1_100), None),
    ],
)
def test_what_the_venue_says_of_the_only_child_is_what_becomes_of_the_order(event: Any, end: OrderState | None) -> None:
    parent = ParentOrder(APPROVAL, at_once(10.0))
    child_of(parent)
    parent.apply(event)
    assert parent.end is end
    assert parent.next_child(1_200) is None


def test_a_child_that_was_not_sent_is_none_and_stops_the_order() -> None:
    parent = ParentOrder(APPROVAL, at_once(10.0))
    parent.not_sent(child_of(parent))
    assert (parent.committed, parent.end) == (0.0, OrderState.CANCELLED)


def test_an_order_of_an_earlier_process_is_only_waited_for() -> None:
    parent = ParentOrder.recovered(7, "A", Side.SELL, 10.0, 3.0, {"7-2": 2.0})
    assert parent.next_child(0) is None
    assert (parent.committed, parent.end) == (5.0, None)
    parent.apply(OrderCancelled("7-2", 1))
    assert parent.end is OrderState.CANCELLED


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["time", "time", "accept", "fill", "rest", "cancelled", "rejected", "expired", "stop"]),
        st.integers(0, 5),
        st.floats(0.01, 1.0),
    ),
    max_size=50,
)


class Venue:
    """What a venue does to the children of one parent, and what may be filled of them at the worst."""

    def __init__(self, parent: ParentOrder) -> None:
        self.parent = parent
        self.open: dict[str, float] = {}
        self.filled = 0.0
        self.stopped = False
        self._fills = 0

    @property
    def worst(self) -> float:
        return self.filled + math.fsum(self.open.values())

    def send(self, now_ns: int) -> None:
        sent = self.parent.next_child(now_ns)
        if sent is None:
            return
        approval = self.parent.approval
        assert not self.stopped
        assert now_ns + sent.valid_for_ns == approval.expires_ns
        assert now_ns < approval.expires_ns
        assert (sent.symbol, sent.side, sent.limit_price) == (approval.symbol, approval.side, approval.limit_price)
        assert sent.order_id not in self.open
        self.open[sent.order_id] = sent.size

    def fill(self, child: str, part: float) -> None:
        self._fills += 1
        self.filled += part
        left = self.open.pop(child) - part
        if left:
            self.open[child] = left
        order = NewOrder(child, "A", Side.BUY, 1.0, 101.0, 1)
        self.parent.apply(fill(order, part, left, self._fills))

    def end(self, child: str, how: str) -> None:
        del self.open[child]
        self.stopped = True
        events = {
            "rejected": OrderRejected(child, RejectReason.VENUE_REFUSED, "", 1),
            "cancelled": OrderCancelled(child, 1),
            "expired": OrderExpired(child, 1),
        }
        self.parent.apply(events[how])


@given(st.floats(1e-6, 1e6), st.integers(1, 8), st.sampled_from([1e-8, 1e-3]), STEPS)
def test_children_never_add_up_to_more_than_the_approval(size: float, slices: int, lot: float, steps: Any) -> None:
    parent = ParentOrder(replace(APPROVAL, size=size), twap(size, 800, slices, lot=lot))
    venue = Venue(parent)
    now_ns = 1_000
    for what, choice, share in steps:
        child = sorted(venue.open)[choice % len(venue.open)] if venue.open else ""
        if what == "time":
            now_ns += choice * 60
            venue.send(now_ns)
        elif what == "stop":
            parent.stop()
            venue.stopped = True
        elif child and what in ("fill", "rest"):
            venue.fill(child, venue.open[child] * (1.0 if what == "rest" else share))
        elif child and what == "accept":
            parent.apply(OrderAccepted(child, now_ns))
        elif child:
            venue.end(child, what)
        assert venue.worst <= size * (1.0 + 1e-9)
        assert parent.committed == pytest.approx(venue.worst, rel=1e-9, abs=1e-12)
        assert parent.filled == pytest.approx(venue.filled)
        assert parent.end is None or not venue.open
