"""What the journal is told of each request before its answer leaves, and what follows from a decision once it is there.

One thread: the one that decides. Without a journal decisions are concluded all the same, under numbers that stand for
their records' sequences.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from tickgate_server.answered import AnsweredRequests
from tickgate_server.desk import Desk
from tickgate_server.intake import stated_held
from tickgate_server.journal.layout import ControlKind, Flags
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.loading import LoadedModel
from tickgate_server.records import Decision, Request, Stage, stated
from tickgate_server.risk.reasons import Action
from tickgate_server.ticks.market import MarketState

# Plain ints beside the enums: looking a member up costs more than the comparison.
_HOLD, _BUY = int(Action.HOLD), int(Action.BUY)
_NONE = int(Stage.NONE)
_REPEATED, _HELD_BACK = int(Flags.REPEATED), int(Flags.HELD_BACK)
_LAST_TICKET = 0xFFFF  # as the journal has room for; far more than runs wait at a time


class Recorder:
    """The records of one engine's requests.

    Args:
        journal: None: there is none.
        desk: Reserves what is approved.
        answered: Remembers request ids.
    """

    def __init__(self, journal: JournalWriter | None, desk: Desk, answered: AnsweredRequests) -> None:
        self._journal = journal
        self._desk = desk
        self._answered = answered
        self._ticket = 0

    def record(self, request: Request, decision: Decision, *, request_id: str, status: int) -> int:
        """Append what became of a request to the journal, if there is one; once for each, before its answer leaves.

        Args:
            request: As it was decoded, as far as it could be.
            decision: As `decide` left it, whether it raised or not.
            request_id: The caller's.
            status: google.rpc.Code that it is answered with.

        Returns:
            The record's sequence; without a journal a number that stands for it.

        Raises:
            JournalError: It is not in the journal, and no answer may leave.
        """
        begun = decision.stage != _NONE  # else it holds what the request before left
        if self._journal is None:
            sequence = self._desk.next_order_id()
            if begun and status == 0:
                self.conclude(request, decision, sequence)
            self._desk.expect(sequence + 1)
            return sequence
        sequence = self._journal.append_decision(
            request,
            decision,
            request_id=request_id,
            status=status,
            stage=decision.stage,
            applied=begun and decision.applied,
            clock_ns=decision.clock_ns if begun else 0,
            vector=decision.vector if begun else None,
            flags=_flags(decision) if begun else 0,
        )
        if begun and status == 0:
            self.conclude(request, decision, sequence)
        return sequence

    def unsent(self, sequences: list[int], status: int) -> None:
        """Answers of decisions that the journal has as OK did not leave: tell it so, and release what they reserved.

        Args:
            sequences: As `record` gave them.
            status: google.rpc.Code that they are answered with.

        Raises:
            JournalError: It is not in the journal.
        """
        if self._journal is not None:
            self._journal.append_control(ControlKind.UNSENT, {"sequences": sequences, "status": status})
        self._desk.release_unsent(sequences)

    def conclude(self, request: Request, decision: Decision, sequence: int) -> None:
        """A decision is final, and its answer may leave: reserve what it approves, remember its request id.

        Args:
            request: As decided.
            decision: As decided.
            sequence: Of its record.
        """
        if decision.repeated:
            return
        if decision.action != _HOLD:
            signed = decision.size if decision.action == _BUY else -decision.size
            self._desk.reserve(decision.row, signed, decision.valid_for_us, decision.order_id)
        if request.request_id and decision.payload:
            self._answered.keep(request, decision, sequence)

    def tell_started(self, request: Request, decision: Decision, vector: NDArray[np.float32]) -> None:
        """Keep the vector, which later ticks change, and tell the journal where in the order the input was applied."""
        decision.vector = vector.copy()
        self._ticket = self._ticket % _LAST_TICKET + 1
        decision.ticket = self._ticket
        if self._journal is not None:
            payload = {"ticket": decision.ticket, "request": stated(request, cast("LoadedModel", decision.model))}
            self._journal.append_control(ControlKind.STARTED, payload, clock_ns=decision.clock_ns)

    def tell_confirmed(self, request: Request, decision: Decision, state: MarketState) -> None:
        """Have the journal say of a trade held back that it was applied after all, before the one that confirmed it."""
        if self._journal is None:
            return
        payload = stated_held(request.symbol, decision.row, state)
        self._journal.append_control(ControlKind.TICK, payload, clock_ns=decision.clock_ns)

    def tell_resumed(self, symbol: str) -> None:
        """Have the journal say that a repeat of its latest tick put a symbol's stored state in force.

        Raises:
            JournalError: It is not in the journal.
        """
        if self._journal is not None:
            clock_ns = self._desk.now_ns()
            self._journal.append_control(ControlKind.STATES, {"resumed": symbol}, clock_ns=clock_ns)


def _flags(decision: Decision) -> int:
    """What the journal is to know of a decision beside its fields."""
    return (_REPEATED if decision.repeated else 0) | (_HELD_BACK if decision.held_back else 0)
