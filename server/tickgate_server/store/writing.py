"""Vectors and states on their way to Redis: a bounded queue, and the one thread that empties it in pipelines.

Redis slow, gone or full holds nobody up but this thread. What was not written is tried again; vectors beyond the bound
are dropped, the oldest first; of states only the newest is ever written.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from threading import Condition, Thread

import numpy as np
import structlog
from numpy.typing import NDArray

from tickgate_server.states.codec import StoredVector, pack_state, pack_vector
from tickgate_server.states.state import SymbolState
from tickgate_server.store.connection import Pipeline, StoreConnection
from tickgate_server.store.errors import BreakerOpen, StoreDenied, StoreError, StoreFault, StoreFull
from tickgate_server.store.keys import Keys, history_member
from tickgate_server.store.replica import Vectors
from tickgate_server.store_settings import StoreSettings

# Vectors of one turn; where more wait, only the newest of each symbol is written.
VECTORS_AT_ONCE = 2048
STATES_AT_ONCE = 256
# With nothing to write, Redis is asked so often whether it is there.
PING_S = 1.0

_KINDS = {StoreDenied: "denied", StoreFull: "full", StoreFault: "fault"}
_LOG = structlog.get_logger()

Some = tuple[Vectors, NDArray[np.intp]]
"""Some of a batch of vectors, by their places in it."""


class Writer:
    """Writes to one Redis.

    Attributes:
        connected: Whether the last call was answered.
        since_ns: Wall clock: since when it is, or is not.
        why: The last error; empty while connected.
        errors: Calls that failed, by kind.
        written_vectors, written_states, written_bytes, dropped, conflated: As `StoreStatus`.
        last_write_ns: As above.
        reconnected: Set when Redis answers again after it did not: it may have come back empty.

    Args:
        connection: Where to.
        settings: Of the store.
    """

    def __init__(self, connection: StoreConnection, settings: StoreSettings) -> None:
        self.connected = False
        self.since_ns = time.time_ns()
        self.why = "not asked yet"
        self.errors: Counter[str] = Counter()
        self.written_vectors = self.written_states = self.written_bytes = 0
        self.dropped = self.conflated = 0
        self.last_write_ns = 0
        self.reconnected = False
        self._connection = connection
        self._settings = settings
        self._keys = Keys(settings.prefix)
        self._condition = Condition()
        self._vectors: deque[Some] = deque()
        self._waiting = 0
        self._states: dict[str, SymbolState] = {}
        self._unwritten: list[str] = []
        self._in_hand = 0
        self._give_up_s = float("inf")
        self._ending = False
        self._asked_s = 0.0
        self._thread = Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    @property
    def queue(self) -> int:
        """Vectors that wait."""
        return self._waiting

    @property
    def states_waiting(self) -> int:
        """States that wait, those that are being written among them."""
        return len(self._states) + self._in_hand

    def offer(self, vectors: Vectors) -> None:
        """Have vectors written; never waits."""
        with self._condition:
            self._vectors.append((vectors, np.arange(len(vectors.symbols))))
            self._waiting += len(vectors.symbols)
            self._drop_over()
            self._condition.notify()

    def offer_states(self, states: Iterable[SymbolState]) -> None:
        """Have states written, each in place of its symbol's older one; never waits."""
        with self._condition:
            self._states |= {state.symbol: state for state in states}
            self._condition.notify()

    def take_unwritten(self) -> list[str]:
        """Symbols whose states could not be written since the last call: they are to be offered as they are now."""
        with self._condition:
            found, self._unwritten = self._unwritten, []
            return found

    def close(self, within_s: float) -> None:
        """Write what waits, for so long at most, and end."""
        with self._condition:
            self._ending = True
            self._give_up_s = time.monotonic() + within_s
            self._condition.notify()
        self._thread.join(within_s + self._settings.timeout_s + self._settings.connect_timeout_s)
        if not self._thread.is_alive():
            self._connection.close()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                # Redis that does not answer is left alone as long as its breaker says.
                self._condition.wait(self._connection.breaker.wait_s() or self._idle_s())
                something = bool(self._vectors or self._states)
                if self._ending and (not something or time.monotonic() >= self._give_up_s):
                    return
                if self._connection.breaker.wait_s() > 0.0:
                    continue
                vectors, states = self._take_vectors(), self._take_states()
            self._write(vectors, states)

    def _idle_s(self) -> float:
        """How long there is nothing to do; the lock is held."""
        if self._vectors or self._states or self._ending:
            return 0.0
        return max(self._asked_s + PING_S - time.monotonic(), 0.001)

    def _take_vectors(self) -> list[Some]:
        """What to write now; the lock is held."""
        if self._waiting <= VECTORS_AT_ONCE:
            found = list(self._vectors)
        else:
            found, conflated = newest_of_each(self._vectors)
            self.conflated += conflated
        self._vectors.clear()
        self._waiting = 0
        return found

    def _take_states(self) -> list[SymbolState]:
        chosen = list(self._states)[:STATES_AT_ONCE]
        self._in_hand = len(chosen)
        return [self._states.pop(symbol) for symbol in chosen]

    def _write(self, vectors: list[Some], states: list[SymbolState]) -> None:
        self._asked_s = time.monotonic()
        try:
            if vectors or states:
                size = self._send(vectors, states)
            else:
                self._connection.ping()
                size = 0
        except BreakerOpen:
            self._put_back(vectors, states)
            return
        except StoreError as error:
            self._failed(error)
            self._put_back(vectors, states)
            return
        self._in_hand = 0
        if not self.connected:
            _LOG.info("store connected", where=self._connection.where)
            self.connected, self.why, self.reconnected = True, "", True
            self.since_ns = time.time_ns()
        if size:
            self.written_vectors += sum(len(places) for _, places in vectors)
            self.written_states += len(states)
            self.written_bytes += size
            self.last_write_ns = time.time_ns()

    def _failed(self, error: StoreError) -> None:
        self.errors[_KINDS.get(type(error), "unreachable")] += 1
        if self.connected or self.why != error.why:
            _LOG.error("store not written", why=str(error))
        was, self.connected, self.why = self.connected, False, error.why
        if was:
            self.since_ns = time.time_ns()  # last: by it the change is noticed

    def _put_back(self, vectors: list[Some], states: list[SymbolState]) -> None:
        with self._condition:
            self._vectors.extendleft(reversed(vectors))
            self._waiting += sum(len(places) for _, places in vectors)
            self._drop_over()
            self._unwritten += [state.symbol for state in states]
            self._in_hand = 0

    def _drop_over(self) -> None:
        """Drop the oldest beyond the bound; the lock is held."""
        over = self._waiting - self._settings.queue_limit
        while over > 0:
            batch, places = self._vectors.popleft()
            gone = min(over, len(places))
            if gone < len(places):
                self._vectors.appendleft((batch, places[gone:]))
            self.dropped += gone
            self._waiting -= gone
            over -= gone

    def _send(self, vectors: list[Some], states: list[SymbolState]) -> int:
        """Write all of it; the bytes of the values."""
        now_ns = time.time_ns()
        commands: list[Callable[[Pipeline], object]] = []
        size = sum(self._note_vectors(batch, places, now_ns, commands) for batch, places in vectors)
        for state in states:
            value = pack_state(state, now_ns)
            size += len(value)
            commands.append(_set(self._keys.state(state.symbol), value, self._settings.state_ttl_s))
        if states:
            now_s, name = now_ns / 1e9, self._keys.states()
            commands.append(lambda pipeline: pipeline.zadd(name, {state.symbol: now_s for state in states}))
            commands.append(lambda pipeline: pipeline.zremrangebyscore(name, 0, now_s - self._settings.state_ttl_s))
        self._connection.write(commands)
        return size

    def _note_vectors(
        self, batch: Vectors, places: NDArray[np.intp], now_ns: int, commands: list[Callable[[Pipeline], object]]
    ) -> int:
        ttl_s, size = self._settings.vector_ttl_s, 0
        newest: dict[str, bytes] = {}
        told: dict[str, dict[str, float]] = {}
        for k in places.tolist():
            symbol, sequence = batch.symbols[k], int(batch.sequences[k])
            exchange_ts_ns = int(batch.exchange_ts_ns[k])
            value = pack_vector(
                StoredVector(
                    symbol,
                    batch.schema_id,
                    sequence,
                    bool(batch.counted[k]),
                    exchange_ts_ns,
                    now_ns,
                    float(batch.prices[k]),
                    batch.values[k],
                )
            )
            size += len(value)
            commands.append(_set(self._keys.vector(batch.schema_id, symbol, sequence), value, ttl_s))
            newest[symbol] = value
            # Microseconds: nanoseconds since the epoch do not fit a score, which is a double.
            told.setdefault(symbol, {})[history_member(sequence)] = exchange_ts_ns // 1000
        for symbol, value in newest.items():
            commands.append(_set(self._keys.latest(batch.schema_id, symbol), value, ttl_s))
            if self._settings.history:
                commands.append(self._history(self._keys.history(batch.schema_id, symbol), told[symbol]))
        return size

    def _history(self, name: str, members: dict[str, float]) -> Callable[[Pipeline], object]:
        def note(pipeline: Pipeline) -> None:
            pipeline.zadd(name, members)
            pipeline.zremrangebyrank(name, 0, -self._settings.history - 1)
            pipeline.expire(name, self._settings.vector_ttl_s)

        return note


def newest_of_each(batches: Iterable[Some]) -> tuple[list[Some], int]:
    """Of each symbol and feature set the newest vector of all, in their order; and how many were passed over."""
    seen: set[tuple[str, str]] = set()
    found: list[Some] = []
    passed = 0
    for batch, places in reversed(list(batches)):
        kept = []
        for place in places[::-1].tolist():
            key = (batch.schema_id, batch.symbols[place])
            if key in seen:
                passed += 1
                continue
            seen.add(key)
            kept.append(place)
        if kept:
            found.append((batch, np.array(kept[::-1], np.intp)))
    return found[::-1], passed


def _set(name: str, value: bytes, ttl_s: int) -> Callable[[Pipeline], object]:
    return lambda pipeline: pipeline.set(name, value, ex=ttl_s)
