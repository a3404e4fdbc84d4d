"""Inference for its own sake, off the thread that answers: a few threads, one bounded queue, and a watchdog.

A job does everything between a parsed request and its answer's bytes; what it costs the interpreter (reading and
writing tensors) is in turns with the thread that answers, and ONNX Runtime lets go of it. See `offload` for how runs
end.
"""

import sys
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from time import perf_counter_ns

from tickgate_server.models.offload import Outcome, Timed, Watchdog
from tickgate_server.models.plain_errors import InferenceBusy
from tickgate_server.scheduling import be_nicer

# As for models with a thread of their own: who waits for the interpreter asks for it soon, and answers go first.
_SWITCH_INTERVAL_S = 1e-4
_NICER = 5
_JOIN_S = 1.0


class Job(Timed):
    """One request on its way through the threads.

    Attributes:
        work: What to do; gets the job, and leaves the answer in it. What it raises is the job's `error`.
        answer: The answer's bytes.
        read_ns, ran_ns: When inputs had been read, and when the model had run.
        rows: In the request.
    """

    __slots__ = ("answer", "ran_ns", "read_ns", "rows", "work")

    def __init__(self, due_ns: int, work: "Callable[[Job], None]") -> None:
        super().__init__(due_ns, _nobody)
        self.work: Callable[[Job], None] | None = work
        self.answer = b""
        self.read_ns = self.ran_ns = 0
        self.rows = 1


def _nobody() -> None:
    """Nobody is to be told yet."""


class InferenceThreads:
    """The threads.

    Args:
        threads: How many.
        limit: Most jobs that wait.
    """

    def __init__(self, threads: int, limit: int) -> None:
        sys.setswitchinterval(min(_SWITCH_INTERVAL_S, sys.getswitchinterval()))
        self._limit = limit
        self._watchdog = Watchdog()
        self._ready = Condition(self._watchdog.lock)
        self._queue: deque[Job] = deque()
        self._running: set[Job] = set()
        self._closed = False
        self._threads = [
            Thread(target=self._work, name=f"tickgate-inference-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; `on_ended` is called when it has an outcome.

        Raises:
            InferenceBusy: As many wait as may.
        """
        with self._watchdog.lock:
            if len(self._queue) >= self._limit:
                raise InferenceBusy(len(self._queue))
            job.submitted_ns = perf_counter_ns()
            job.queue = self._queue
            self._watchdog.watch(job)
            self._queue.append(job)
            self._ready.notify()

    def give_up(self, job: Job) -> bool:
        """End a job that nobody waits for any more; False: it had an outcome."""
        with self._watchdog.lock:
            return self._watchdog.settle(job, Outcome.GIVEN_UP)

    def close(self) -> None:
        """Give up all jobs, and end the threads as soon as the models let them."""
        with self._watchdog.lock:
            self._closed = True
            for job in [*self._queue, *self._running]:
                self._watchdog.settle(job, Outcome.GIVEN_UP)
            self._ready.notify_all()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._watchdog.close()

    def _work(self) -> None:
        be_nicer(_NICER)
        while True:
            job = self._next()
            if job is None:
                return
            outcome = _done(job)
            job.ended_ns = perf_counter_ns()
            with self._watchdog.lock:
                self._running.discard(job)
                self._watchdog.settle(job, outcome)
            del job  # with the model that it ran: idle, a thread keeps neither

    def _next(self) -> Job | None:
        """The next job; None at the end."""
        with self._watchdog.lock:
            while not self._queue:
                if self._closed:
                    return None
                self._ready.wait()
            job = self._queue.popleft()
            self._running.add(job)
            job.started_ns = perf_counter_ns()
            return job


def _done(job: Job) -> Outcome:
    work = job.work
    if work is None:  # its time was up between queue and thread
        return Outcome.GIVEN_UP
    try:
        work(job)
    except Exception as error:  # noqa: BLE001 - what a graph raises shares no base; the caller gets it
        job.error = error
        return Outcome.FAILED
    return Outcome.SCORED
