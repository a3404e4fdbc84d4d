"""The SLA monitor: what a client's calls did, judged against objectives, while they happen.

    objective = Objective("signals", limit_us=5_000, target=0.999, stall_us=50_000)
    with SlaMonitor([objective]) as monitor, SignalClient(target, latency=monitor) as client:
        answer = client.predict(tick)
        monitor.before_order()  # raises TradingHeld while the objective is in breach

A call costs its caller two clock readings, an entry in a dictionary and one append of a small tuple. A thread folds
the tuples into histograms and looks at the objectives. What must not wait for that thread is judged by the caller: a
call that ends late, the age of those outstanding, a lost server, and whether the thread itself is late.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tickgate_client.errors import TradingHeld
from tickgate_client.latency import LatencySummary, Percentiles
from tickgate_client.sla.calls import CallLog
from tickgate_client.sla.judge import Breach, Judge, WindowCounts
from tickgate_client.sla.objectives import WINDOWS_S, BreachCause, Objective, Policy
from tickgate_client.sla.windows import Slice, Windows

_LOG = logging.getLogger(__name__)

# Folded at a time: a call that comes back waits for the interpreter no longer than this many samples take.
_CHUNK = 16
_PAUSE_S = 50e-6
# Between two looks at most: what is left waits for the next one.
_CHUNKS = 1024


@dataclass(frozen=True, slots=True)
class Alarm:
    """What keeps an order back.

    Attributes:
        objective: The objective in breach.
        causes: What is wrong now; empty while it only has not been clean for long enough.
    """

    objective: Objective
    causes: tuple[BreachCause, ...]


class SlaMonitor(CallLog):
    """Records calls as a LatencyRecorder does, and judges them. Safe to use from several threads.

    Give it to clients as their `latency`; `sla.interceptors` puts it around any other stub. It judges nothing before
    `start`, and lets no order pass before its first look.

    Args:
        objectives: What is promised; names must differ.
        expected_interval_us: Of a caller that asks at a fixed rate, one call at a time: calls that it could not make
            while one was late are counted too (see `windows.Slice.add`). None: no fixed rate.
        on_enter: Called with each breach that begins, on the monitor's thread: one that takes long makes the monitor
            late. An error in it is logged and counted in `callback_errors`.
        on_leave: Called with each breach that ends.
        flatten: Called with each breach of an objective whose policy is FLATTEN, before `on_enter`.
        capacity: Samples that may wait to be folded; about 150 bytes each.
        look_every_s: Between two looks.
        late_after_s: A look as old as this means nothing any more, and no order passes.
        clock: Nanoseconds that never go back.

    Attributes:
        objectives: As given.
        expected_interval_us: As given.
        callback_errors: Callbacks that failed.
    """

    def __init__(
        self,
        objectives: Sequence[Objective] = (),
        *,
        expected_interval_us: float | None = None,
        on_enter: Callable[[Breach], None] | None = None,
        on_leave: Callable[[Breach], None] | None = None,
        flatten: Callable[[Breach], None] | None = None,
        capacity: int = 65_536,
        look_every_s: float = 0.05,
        late_after_s: float = 1.0,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.objectives = tuple(objectives)
        names = [objective.name for objective in self.objectives]
        if len(set(names)) != len(names):
            raise ValueError(f"names of objectives are {names}, must differ")
        if flatten is None and any(objective.policy is Policy.FLATTEN for objective in self.objectives):
            raise ValueError("an objective's policy is FLATTEN, and `flatten` is not given")
        if expected_interval_us is not None and not 1 <= expected_interval_us < float("inf"):
            raise ValueError(f"expected_interval_us is {expected_interval_us}, must be at least 1 and finite")
        if not 0 < look_every_s < late_after_s:
            raise ValueError(f"look_every_s is {look_every_s}, must be positive and below late_after_s, {late_after_s}")
        self.expected_interval_us = expected_interval_us
        super().__init__(self.objectives, capacity, clock)
        self.callback_errors = 0
        self._interval_ns = int((expected_interval_us or 0) * 1e3)
        self._limits_ns = tuple(objective.limit_ns for objective in self.objectives)
        self._on_enter, self._on_leave, self._flatten = on_enter, on_leave, flatten
        self._look_every_s = look_every_s
        self._late_after_ns = int(late_after_s * 1e9)

        # Written by whoever folds and looks.
        self._folding = threading.RLock()
        self._windows = Windows(len(self.objectives))
        self._looked_ns: int | None = None

        self._stopping = False
        self._thread: threading.Thread | None = None

    def before_order(self) -> None:
        """Call before each order that adds risk: raises TradingHeld while the policy in force is HOLD or FLATTEN.

        Also where the monitor's thread has not noticed yet, or has not looked for `late_after_s`. An order that
        reduces a position needs no leave.
        """
        alarm = self.alarm()
        if alarm is not None:
            raise TradingHeld(alarm.objective.name, alarm.objective.policy.name, [str(cause) for cause in alarm.causes])

    @property
    def may_add_risk(self) -> bool:
        """Whether `before_order` would pass."""
        return self.alarm() is None

    def alarm(self) -> Alarm | None:
        """What keeps an order back now; of several objectives, the one with the strictest policy."""
        now_ns = self._clock()
        self._judge_outstanding(now_ns)
        held = [judge for judge in self._judges if judge.objective.policy is not Policy.CONTINUE]
        worst: Alarm | None = None
        for judge in held:
            causes = self._causes_now(judge, now_ns)
            if (causes or judge.breach is not None) and (
                worst is None or judge.objective.policy > worst.objective.policy
            ):
                worst = Alarm(judge.objective, causes)
        return worst

    def look(self) -> None:
        """Fold and judge now; what the monitor's thread does again and again. Callbacks are called on this thread."""
        self.fold()
        self._judge()

    def fold(self) -> None:
        """Fold every sample that waits; reading does it too."""
        with self._folding:
            while self._fold_some(len(self._samples)):
                pass

    def reset(self) -> None:
        """Forget every sample; standings stay as they are."""
        with self._folding:
            self._samples.clear()
            self._windows = Windows(len(self.objectives))

    def percentiles(self) -> Percentiles:
        """Percentiles of the round trip, of everything since the start or the last reset."""
        return self.summary().round_trip

    def summary(self) -> LatencySummary:
        """Percentiles of round trip, server and network, of everything since the start or the last reset."""
        return self.everything().latency()

    def everything(self) -> Slice:
        """What all calls did since the start or the last reset; the caller's own copy."""
        with self._folding:
            self.fold()
            return self._windows.everything()

    def window(self, span_s: int) -> Slice:
        """What the calls of a sliding window did (one of WINDOWS_S); the caller's own copy."""
        with self._folding:
            self.fold()
            self._windows.turn(self._clock())
            return self._windows.window(span_s)

    def standings(self) -> tuple[Judge, ...]:
        """Each objective's judge, to read: its breach, and what the last look found wrong."""
        return self._judges

    def start(self) -> None:
        """Look once, and begin to look again and again on a thread of its own."""
        if self._thread is not None:
            raise ValueError("the monitor was started before")
        self.look()
        self._thread = threading.Thread(target=self._run, name="tickgate-sla", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and look a last time; from then on the monitor grows late, and no order passes."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self.look()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _causes_now(self, judge: Judge, now_ns: int) -> tuple[BreachCause, ...]:
        found = []
        if BreachCause.BUDGET_BURN in judge.causes and judge.breach is not None:
            found.append(BreachCause.BUDGET_BURN)
        if judge.alarmed(now_ns):
            found.append(BreachCause.LATENCY_STALL)
        lost_ns = self._lost_ns
        if self._lost_for is not None or (lost_ns is not None and now_ns - lost_ns < judge.objective.clean_ns):
            found.append(BreachCause.SERVER_LOST)
        looked_ns = self._looked_ns
        if looked_ns is None or now_ns - looked_ns > self._late_after_ns:
            found.append(BreachCause.MONITOR_LATE)
        return tuple(found)

    def _counts(self) -> list[dict[int, WindowCounts]]:
        by_window = {span_s: self._windows.counts(span_s) for span_s in WINDOWS_S}
        return [
            {span_s: WindowCounts(calls, bad[at]) for span_s, (calls, bad) in by_window.items()}
            for at in range(len(self.objectives))
        ]

    def _fold_some(self, most: int) -> int:
        with self._folding:
            for folded in range(most):
                if not self._samples:
                    return folded
                ended_ns, took_ns, server_ns, status = self._samples.popleft()
                self._windows.at(ended_ns).add(
                    took_ns, server_ns, status, interval_ns=self._interval_ns, limits_ns=self._limits_ns
                )
                if status == 0:
                    for judge, limit_ns in zip(self._judges, self._limits_ns, strict=True):
                        if took_ns <= limit_ns:
                            judge.good_call(ended_ns - took_ns)
            return most

    def _tell(self, breach: Breach) -> None:
        if breach.ended_ns is not None:
            wanted = [self._on_leave]
        else:
            wanted = [self._flatten if breach.policy is Policy.FLATTEN else None, self._on_enter]
        for callback in wanted:
            if callback is None:
                continue
            try:
                callback(breach)
            except Exception:  # noqa: BLE001 - the desk's code: the monitor must go on judging
                self.callback_errors += 1
                _LOG.exception("a callback failed on %s", breach)

    def _judge(self) -> None:
        changes = []
        with self._folding:
            now_ns = self._clock()
            self._windows.turn(now_ns)
            self._judge_outstanding(now_ns)
            if self._lost_for is not None:
                self._lost_ns = now_ns
            for judge, counts in zip(self._judges, self._counts(), strict=True):
                changes.append(judge.look(now_ns, counts, lost_ns=self._lost_ns))
            self._looked_ns = now_ns
        for changed in changes:
            if changed is not None:
                self._tell(changed)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(min(self._look_every_s, self._stall_in_s()))
            self._wake.clear()
            for _ in range(_CHUNKS):
                if self._fold_some(_CHUNK) < _CHUNK:
                    break
                time.sleep(_PAUSE_S)  # whoever has an answer takes the interpreter now
            self._judge()
