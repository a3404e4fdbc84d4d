"""Request ids at the engine: an answer is remembered under its id, and given again to the same id and payload."""

from time import perf_counter_ns
from typing import cast

from tickgate_server.desk import Desk
from tickgate_server.models.loading import LoadedModel
from tickgate_server.payload import payload_of
from tickgate_server.records import Decision, Request, Stage
from tickgate_server.risk import request_ids as ids
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.risk.regimes import TradingState
from tickgate_server.roster import Roster

_HOLD, _ENCODING = int(Action.HOLD), int(Stage.ENCODING)
_EXPIRED, _REUSED = int(Reason.REQUEST_EXPIRED), int(Reason.REQUEST_ID_REUSED)
_DESK_HALTED, _DESK_REDUCING = int(Reason.TRADING_STATE_HALTED), int(Reason.TRADING_STATE_REDUCING)
_HALTED, _REDUCING = int(TradingState.HALTED), int(TradingState.REDUCING)


class AnsweredRequests:
    """The request ids of one engine, as far as its general path has to do with them.

    Args:
        desk: Whose `ids` they are.
        roster: Of the models that answered.
    """

    def __init__(self, desk: Desk, roster: Roster) -> None:
        self._desk = desk
        self._roster = roster

    def keep(self, request: Request, decision: Decision, sequence: int) -> None:
        """Remember a request id with its answer, that of the record `sequence`."""
        kept = self._desk.ids
        entry = kept.keep(request.request_id, decision.payload)
        now_ns = self._desk.now_ns()
        valid_us = decision.valid_for_us or self._desk.limits.valid_for_us
        number = self._roster.numbers[cast("LoadedModel", decision.model)]
        kept.facts[entry] = (
            sequence,
            now_ns + valid_us * 1000,
            now_ns,
            decision.action,
            decision.reason,
            decision.valid_for_us,
            number,
            decision.scored,
            decision.reducing,
            decision.regime,
        )
        kept.values[entry] = (
            decision.size,
            decision.limit_price,
            decision.target,
            decision.value,
            decision.confidence,
            decision.remaining,
        )

    def again(self, request: Request, decision: Decision) -> bool:
        """Whether the request id is known; then the first answer is in `decision` again, or why it is not."""
        kept = self._desk.ids
        decision.payload = payload = payload_of(request)
        entry = kept.find(request.request_id)
        if entry < 0:
            return False
        decision.repeated = True
        decision.stage = _ENCODING
        facts = kept.facts[entry].tolist()
        decision.clock_ns = now_ns = self._desk.now_ns()
        if not kept.same_payload(entry, payload):
            decision.reason = _REUSED
        elif now_ns >= facts[ids.EXPIRES_NS]:
            decision.reason = _EXPIRED
        elif facts[ids.ACTION] != _HOLD and decision.trading_state == _HALTED:
            decision.reason = _DESK_HALTED
        elif facts[ids.ACTION] != _HOLD and decision.trading_state == _REDUCING and not facts[ids.REDUCING]:
            decision.reason = _DESK_REDUCING
        else:
            decision.action, decision.reason = facts[ids.ACTION], facts[ids.REASON]
            decision.valid_for_us = facts[ids.VALID_FOR_US]
            decision.scored, decision.reducing = bool(facts[ids.SCORED]), bool(facts[ids.REDUCING])
            decision.regime = facts[ids.REGIME]
            decision.sent_ns = facts[ids.CLOCK_NS]
            if facts[ids.MODEL] >= 0:  # else it was answered before a restart
                decision.model = self._roster.by_number[facts[ids.MODEL]]
            if decision.action != _HOLD:
                decision.order_id = facts[ids.SEQUENCE]
            (
                decision.size,
                decision.limit_price,
                decision.target,
                decision.value,
                decision.confidence,
                decision.remaining,
            ) = kept.values[entry].tolist()
        decision.total_ns = perf_counter_ns() - request.arrival_ns
        return True
