"""When the polling thread waits awake; gRPC's queue and the clock are scripted."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from grpc._cython import cygrpc

from tickgate_server.rpc.busy_poll import BusyPoll, Event

LIMIT_NS = 150_000
POLL_NS = 2_000  # what a look at the queue takes
ASLEEP = 1e9  # wake_at of the tests, by which a sleeping poll is told
TIMEOUT = SimpleNamespace(completion_type=cygrpc.CompletionType.queue_timeout)
EVENT = SimpleNamespace(completion_type=cygrpc.CompletionType.operation_complete)


@dataclass
class Queue:
    """Has its next event at a time of a clock that only polls move."""

    now_ns: int = 0
    event_ns: int = 0
    deadlines: list[float] = field(default_factory=list)

    def poll(self, deadline: float) -> Event:
        self.deadlines.append(deadline)
        if deadline == ASLEEP:
            self.now_ns = max(self.now_ns, self.event_ns)
        self.now_ns += POLL_NS
        return EVENT if self.now_ns >= self.event_ns else TIMEOUT

    def after(self, poll: BusyPoll, wait_ns: int, *, awake: bool = True) -> list[float]:
        """Take an event that comes after a while; the deadlines that were polled with."""
        self.event_ns = self.now_ns + wait_ns
        self.deadlines.clear()
        assert poll.next(ASLEEP, awake=awake) is EVENT
        return list(self.deadlines)


@pytest.fixture
def queue() -> Queue:
    return Queue()


def polling(queue: Queue, limit_ns: int = LIMIT_NS) -> BusyPoll:
    return BusyPoll(queue, limit_ns, lambda: queue.now_ns)


def woken(queue: Queue) -> BusyPoll:
    poll = polling(queue)
    for _ in range(20):
        queue.after(poll, 60_000)
    return poll


def test_it_begins_asleep_and_stays_awake_once_short_waits_are_usual(queue: Queue) -> None:
    poll = polling(queue)
    assert queue.after(poll, 60_000) == [ASLEEP]
    for _ in range(20):
        deadlines = queue.after(poll, 60_000)
    assert set(deadlines) == {0.0}
    assert len(deadlines) == 60_000 // POLL_NS


def test_it_sleeps_where_long_waits_are_usual_and_after_its_limit(queue: Queue) -> None:
    poll = woken(queue)
    late = queue.after(poll, 10 * LIMIT_NS)
    assert late[-1] == ASLEEP
    assert set(late[:-1]) == {0.0}
    assert len(late) <= LIMIT_NS // POLL_NS + 2
    for _ in range(3):
        queue.after(poll, 10 * LIMIT_NS)
    assert queue.after(poll, 10 * LIMIT_NS) == [ASLEEP]


def test_one_long_pause_is_soon_outweighed(queue: Queue) -> None:
    poll = woken(queue)
    queue.after(poll, 1_000_000_000)
    assert sum(ASLEEP in queue.after(poll, 60_000) for _ in range(10)) <= 5


def test_the_events_of_one_call_say_nothing_of_the_next_call(queue: Queue) -> None:
    poll = polling(queue)
    for _ in range(100):
        queue.after(poll, 3_000)
    assert queue.after(poll, 3_000) == [ASLEEP]


def test_it_sleeps_while_other_threads_have_work(queue: Queue) -> None:
    assert queue.after(woken(queue), 60_000, awake=False) == [ASLEEP]


def test_without_a_limit_it_never_stays_awake(queue: Queue) -> None:
    poll = polling(queue, limit_ns=0)
    for _ in range(50):
        assert queue.after(poll, 60_000) == [ASLEEP]
