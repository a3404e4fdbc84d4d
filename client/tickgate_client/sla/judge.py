"""One objective's standing: when its breach begins and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tickgate_client.sla.objectives import BreachCause, Objective, Policy


@dataclass(frozen=True, slots=True)
class Breach:
    """A breach, as callbacks get it.

    Attributes:
        objective: Name of the objective.
        policy: What its breach means.
        causes: What was wrong as it began; as it ends, what was wrong last.
        began_ns: When it began, on the monitor's clock.
        ended_ns: When it ended; None as it begins.
    """

    objective: str
    policy: Policy
    causes: tuple[BreachCause, ...]
    began_ns: int
    ended_ns: int | None = None


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """The calls of one window, and those of them that were bad for one objective."""

    calls: int
    bad: int


class Judge:
    """Holds one objective against what was counted.

    `stalled` and `alarmed` may be called from any thread, `good_call` and `look` from one at a time.

    Attributes:
        objective: What is promised.
        breach: The breach that is under way, or None.
        breaches: How many there were.
        causes: What the last look found wrong.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.breach: Breach | None = None
        self.breaches = 0
        self.causes: tuple[BreachCause, ...] = ()
        self._stall_seen_ns: int | None = None
        self._wrong_ns = 0
        self._good_since = 0
        self._burning_looks = 0

    def stalled(self, now_ns: int) -> None:
        """A call was found to take, or to have taken, longer than `stall_us`."""
        self._stall_seen_ns = now_ns

    def alarmed(self, now_ns: int) -> bool:
        """Whether a stall was seen within the clean time: it counts from the moment that anybody sees it."""
        seen_ns = self._stall_seen_ns
        return seen_ns is not None and now_ns - seen_ns < self.objective.clean_ns

    def good_call(self, began_ns: int) -> None:
        """A good call was folded: it counts if it began after everything that was wrong until now."""
        if began_ns >= max(self._wrong_ns, self._stall_seen_ns or 0):
            self._good_since += 1

    def burns(self, counts: Mapping[int, WindowCounts]) -> bool:
        """Whether a burn rule is exceeded; windows without calls have no rate, and burn nothing."""
        rate = self.objective.burn_rate
        for rule in self.objective.burn_rules:
            long, short = counts[rule.long_s], counts[rule.short_s]
            if (
                short.bad >= rule.least_bad
                and rate(long.bad, long.calls) > rule.rate
                and rate(short.bad, short.calls) > rule.rate
            ):
                return True
        return False

    def look(self, now_ns: int, counts: Mapping[int, WindowCounts], *, lost_ns: int | None) -> Breach | None:
        """Judge, and give the breach that begins or ends with this look, if one does.

        Args:
            now_ns: On the monitor's clock.
            counts: By window.
            lost_ns: When the server was last found lost; None for never.
        """
        objective = self.objective
        burning = self.burns(counts)
        self._burning_looks = self._burning_looks + 1 if burning else 0
        self.causes = self._causes(now_ns, burning=burning, lost_ns=lost_ns)
        wrong_ns = max(now_ns if burning else 0, self._stall_seen_ns or 0, lost_ns or 0)
        if wrong_ns > self._wrong_ns:
            self._wrong_ns, self._good_since = wrong_ns, 0
        if self.breach is None:
            at_once = set(self.causes) - {BreachCause.BUDGET_BURN}
            if not (at_once or self._burning_looks >= objective.enter_looks):
                return None
            self.breaches += 1
            self.breach = Breach(objective.name, objective.policy, self.causes, now_ns)
            return self.breach
        if now_ns - self._wrong_ns < objective.clean_ns or self._good_since < objective.clean_calls:
            return None
        ended = Breach(objective.name, objective.policy, self.breach.causes, self.breach.began_ns, now_ns)
        self.breach = None
        return ended

    def _causes(self, now_ns: int, *, burning: bool, lost_ns: int | None) -> tuple[BreachCause, ...]:
        found = []
        if burning:
            found.append(BreachCause.BUDGET_BURN)
        if self.alarmed(now_ns):
            found.append(BreachCause.LATENCY_STALL)
        if lost_ns is not None and now_ns - lost_ns < self.objective.clean_ns:
            found.append(BreachCause.SERVER_LOST)
        return tuple(found)
