"""Slow models off the calling thread: a thread and a bounded queue for each, and one watchdog over all of them.

The caller hands a `Run` over and goes on; it is told once, from another thread, that the run has ended or that its time
is up, whichever comes first. Nothing here touches the engine's state: what follows a run is the caller's.

ONNX Runtime lets go of the interpreter while it runs, and `RunOptions.terminate` stops it between two nodes (0.3 to
0.5 ms after the flag). Within a node it cannot be stopped: the caller is told on time all the same, and what the node
gives in the end is dropped.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from threading import Condition, Lock, Thread
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import RunOptions

from tickgate_server.models.errors import ModelBusy
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.session import Session
from tickgate_server.scheduling import be_nicer

# A model that is busy for more than four fifths of the time has more work than it can do, and a queue only makes its
# answers old: then fewer may wait. Each run fills a bucket by one, and a pause as long as a run empties it by four;
# from so many on the queue counts as a standing one. A burst after a pause is not that.
STANDING_RUNS = 8.0
_BUCKET_RUNS = 16.0
_PAUSE_WEIGHT = 4.0
# How long a thread that wants the interpreter waits before it asks for it, in place of Python's 5 ms: a thread that
# polls a queue lets go of it for microseconds only, and kept the watchdog or the end of a run waiting for so long.
SWITCH_INTERVAL_S = 1e-4
# Where cores are short the thread that answers goes first: what it refuses in time, no model need run for.
_NICER = 5
_JOIN_S = 1.0


class Outcome(IntEnum):
    """What became of a run."""

    PENDING = 0
    SCORED = 1
    FAILED = 2  # the graph raised `error`
    TOO_LATE_TO_START = 3  # its turn came after `latest_start_ns`
    TIME_UP = 4  # the budget was spent while it waited or ran
    GIVEN_UP = 5  # by the caller, who is not told any more


class Timed:
    """Work on its way through a thread, until it has ended or its time is up.

    Attributes:
        due_ns: When the budget is spent; this and all times are on `perf_counter_ns`'s clock.
        on_ended: Called once, from another thread, unless the run was given up; must not block.
        options: What ONNX Runtime is to run it with, so that it can be stopped.
        outcome: Settled when `on_ended` is called, and never changed after.
        error: Where it failed.
        queue: That it waits in, or has left.
        submitted_ns, started_ns, ended_ns: 0 while it did not happen.
    """

    __slots__ = (
        "due_ns",
        "ended_ns",
        "error",
        "on_ended",
        "options",
        "outcome",
        "queue",
        "started_ns",
        "submitted_ns",
    )

    def __init__(self, due_ns: int, on_ended: Callable[[], object]) -> None:
        self.due_ns = due_ns
        self.on_ended = on_ended
        self.options = RunOptions()
        self.queue: deque[Any] = deque()
        self.outcome = Outcome.PENDING
        self.error: Exception | None = None
        self.submitted_ns = self.started_ns = self.ended_ns = 0


class Run(Timed):
    """One vector on its way through a model's thread.

    Attributes:
        vector: float32 [width], the run's own.
        latest_start_ns: From when on it does not pay to start.
        probability_up: Where it was scored.
    """

    __slots__ = ("latest_start_ns", "probability_up", "vector")

    def __init__(
        self, vector: NDArray[np.float32], due_ns: int, latest_start_ns: int, on_ended: Callable[[], object]
    ) -> None:
        super().__init__(due_ns, on_ended)
        self.vector = vector
        self.latest_start_ns = latest_start_ns
        self.probability_up = float("nan")


class Watchdog:
    """Ends runs whose time is up; sleeps until the next one's is.

    Attributes:
        lock: Over the outcome of every run, and the queues of all model threads.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._changed = Condition(self.lock)
        self._runs: set[Timed] = set()  # as many as the queues hold
        self._wake_ns = 0  # when it wakes by itself; 0: not before it is told to
        self._closed = False
        self._thread = Thread(target=self._watch, name="tickgate-watchdog", daemon=True)
        self._thread.start()

    @property
    def native_id(self) -> int | None:
        """Of the thread."""
        return self._thread.native_id

    def watch(self, run: Timed) -> None:
        """Take a run on; with the lock held."""
        self._runs.add(run)
        if not self._wake_ns or run.due_ns < self._wake_ns:
            self._changed.notify()

    def settle(self, run: Timed, outcome: Outcome) -> bool:
        """Give a run its outcome, unless it has one; with the lock held. False: it was settled before."""
        if run.outcome is not Outcome.PENDING:
            return False
        self._runs.discard(run)
        run.outcome = outcome
        if outcome > Outcome.FAILED:
            run.options.terminate = True
            with contextlib.suppress(ValueError):  # it has left the queue
                run.queue.remove(run)
        if outcome is not Outcome.GIVEN_UP:
            run.on_ended()
        return True

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now_ns = perf_counter_ns()
                for run in [run for run in self._runs if run.due_ns <= now_ns]:
                    self.settle(run, Outcome.TIME_UP)
                self._wake_ns = min((run.due_ns for run in self._runs), default=0)
                self._changed.wait((self._wake_ns - perf_counter_ns()) / 1e9 if self._wake_ns else None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_JOIN_S)


class ModelThread:
    """The thread that runs one model, in the order of arrival.

    Args:
        name: Of the model and its version, for messages.
        session: What runs; no other thread may use it.
        limit: Most requests that wait.
        standing_limit: The same while the model is busy for most of the time.
        watchdog: Shared by all.
    """

    def __init__(self, name: str, session: Session, limit: int, standing_limit: int, watchdog: Watchdog) -> None:
        self._name = name
        self._session = session
        self._limit = limit
        self._standing_limit = standing_limit
        self._watchdog = watchdog
        self._ready = Condition(watchdog.lock)
        self._queue: deque[Run] = deque()
        self._running: Run | None = None
        self._bucket = 0.0
        self._last_run_ns = 1
        self._pause_ns = 0
        self._closed = self._retired = False
        self._thread = Thread(target=self._work, name=f"tickgate-{name}", daemon=True)
        self._thread.start()

    @property
    def ahead(self) -> int:
        """Runs that one submitted now would wait for."""
        return len(self._queue) + (self._running is not None)

    def require_room(self) -> None:
        """Raise `ModelBusy` where a run may not wait; with one thread that submits, the answer holds until it does."""
        waiting = len(self._queue)
        limit = self._limit if self._bucket < STANDING_RUNS else self._standing_limit
        if waiting >= limit:
            raise ModelBusy(self._name, waiting)

    def submit(self, run: Run) -> None:
        """Queue a run; see `require_room`."""
        run.submitted_ns = perf_counter_ns()
        run.queue = self._queue
        with self._watchdog.lock:
            self._watchdog.watch(run)
            self._queue.append(run)
            self._ready.notify()

    def retire(self) -> None:
        """End the thread once what is queued has run; does not wait for that."""
        with self._watchdog.lock:
            self._retired = True
            self._ready.notify()

    def close(self) -> None:
        """Give up all runs, and end the thread as soon as the model lets it."""
        with self._watchdog.lock:
            self._closed = True
            for run in [*self._queue, *([self._running] if self._running else [])]:
                self._watchdog.settle(run, Outcome.GIVEN_UP)
            self._ready.notify()
        self._thread.join(_JOIN_S)

    def _work(self) -> None:
        be_nicer(_NICER)
        while (run := self._next()) is not None:
            outcome = self._run(run)
            with self._watchdog.lock:
                self._running = None
                self._watchdog.settle(run, outcome)

    def _next(self) -> Run | None:
        """The next run; None at the end."""
        with self._watchdog.lock:
            while not self._closed:
                if not self._queue:
                    if self._retired:
                        break
                    idle_since_ns = perf_counter_ns()
                    self._ready.wait()
                    self._pause_ns += perf_counter_ns() - idle_since_ns
                    continue
                run = self._queue.popleft()
                self._running = run
                return run
        return None

    def _run(self, run: Run) -> Outcome:
        now_ns = perf_counter_ns()
        if now_ns >= run.latest_start_ns:
            return Outcome.TOO_LATE_TO_START
        run.started_ns = now_ns
        pause_runs, self._pause_ns = self._pause_ns / self._last_run_ns, 0
        self._bucket = min(max(self._bucket - _PAUSE_WEIGHT * pause_runs, 0.0) + 1.0, _BUCKET_RUNS)
        try:
            run.probability_up = self._session.score(run.vector, run.options)
        except Exception as error:  # noqa: BLE001 - what a graph raises shares no base; the caller gets it
            run.error = error
            return Outcome.FAILED
        finally:
            run.ended_ns = perf_counter_ns()
            self._last_run_ns = run.ended_ns - now_ns
        return Outcome.SCORED


class ModelThreads:
    """A thread for each model that is not inline, and the watchdog; nothing at all where every model is.

    Attributes:
        of: The thread of each model that has one.

    Args:
        models: Those of the start.
        limit, standing_limit: As `ModelThread`; with a limit of 0 no model has a thread.
    """

    def __init__(self, models: Iterable[LoadedModel], limit: int, standing_limit: int) -> None:
        self._limit = limit
        self._standing_limit = standing_limit
        self._watchdog: Watchdog | None = None
        self._making = Lock()
        self.of: dict[LoadedModel, ModelThread] = {}
        for model in models:
            thread = self.prepare(model)
            if thread is not None:
                self.add(model, thread)

    def prepare(self, model: LoadedModel) -> ModelThread | None:
        """A thread for a model that is to have one; on any thread, as to start one takes a while."""
        session = model.slow_session
        if session is None or not self._limit:
            return None
        with self._making:
            if self._watchdog is None:
                sys.setswitchinterval(min(SWITCH_INTERVAL_S, sys.getswitchinterval()))
                self._watchdog = Watchdog()
        name = f"{model.name}:{model.version}"
        return ModelThread(name, session, self._limit, self._standing_limit, self._watchdog)

    def add(self, model: LoadedModel, thread: ModelThread) -> None:
        """Have a model run on a thread."""
        self.of[model] = thread

    def retire(self, model: LoadedModel) -> None:
        """End a model's thread, if it has one, once what is queued has run."""
        thread = self.of.pop(model, None)
        if thread is not None:
            thread.retire()

    @property
    def watchdog(self) -> int | None:
        """Native id of its thread."""
        return None if self._watchdog is None else self._watchdog.native_id

    def give_up(self, run: Run) -> None:
        """End a run that nobody waits for any more: its `on_ended` is not called from here on."""
        if self._watchdog is not None:
            with self._watchdog.lock:
                self._watchdog.settle(run, Outcome.GIVEN_UP)

    def close(self) -> None:
        """Give up all runs, and end the threads."""
        for thread in self.of.values():
            thread.close()
        if self._watchdog is not None:
            self._watchdog.close()
