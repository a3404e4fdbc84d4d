"""What a gateway says: what became of an answer, and what it noticed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tickgate.v1 import signal_pb2
from tickgate_client.execution.desk import DeskView
from tickgate_client.execution.ledger import RefusedReport
from tickgate_client.execution.orders import OrderState
from tickgate_client.execution.parents import Approval


class Refusal(StrEnum):
    """Why an approved signal was not executed; names are CATEGORY_CONDITION. The first that holds is given."""

    SIGNAL_REPEATED = "SIGNAL_REPEATED"
    """The answer to a request id that was answered before."""
    SIGNAL_INVALID = "SIGNAL_INVALID"
    """Approved, and not an order: no side, size, price, validity or id that could be executed."""
    SIGNAL_DUPLICATE = "SIGNAL_DUPLICATE"
    """Its order was begun before."""
    SIGNAL_EXPIRED = "SIGNAL_EXPIRED"
    """Its validity was over, counted from before the request left."""
    DESK_LOST = "DESK_LOST"
    """Nothing was heard of the desk: it counts as halted."""
    DESK_HALTED = "DESK_HALTED"
    """The desk lets nothing through."""
    DESK_REDUCING = "DESK_REDUCING"
    """The desk only reduces, and the order does not."""
    POSITIONS_DIFFER = "POSITIONS_DIFFER"
    """Positions were not compared yet, or differ, and the order does not reduce what the venue has."""
    POSITIONS_CLOSING = "POSITIONS_CLOSING"
    """Positions are being closed, and the order does not reduce."""
    SLA_HELD = "SLA_HELD"
    """An objective is in breach, and the order does not reduce."""
    OUTBOX_FULL = "OUTBOX_FULL"
    """Too many reports wait for the server."""
    OUTBOX_UNWRITABLE = "OUTBOX_UNWRITABLE"
    """What happens could not be recorded."""
    ENGINE_REFUSED = "ENGINE_REFUSED"
    """The engine took nothing of it."""
    ENGINE_FAILED = "ENGINE_FAILED"
    """The engine failed, and may have sent it: it is being cancelled."""
    GATEWAY_CLOSED = "GATEWAY_CLOSED"
    """The gateway was not started, or was closed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one answer.

    Attributes:
        response: The answer.
        approval: What is being executed; None: nothing.
        refusal: Why an approved signal is not; None where it is, or where the answer was HOLD.
        text: More about the refusal.
    """

    response: signal_pb2.PredictResponse
    approval: Approval | None = None
    refusal: Refusal | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class OrderEnded:
    """An approved order has ended.

    Attributes:
        approval: What was approved.
        state: What became of it: FILLED, CANCELLED, REJECTED or EXPIRED.
        filled: Units of it.
    """

    approval: Approval
    state: OrderState
    filled: float


@dataclass(frozen=True, slots=True)
class DeskChanged:
    """The desk is in another state.

    Attributes:
        view: The state, and why.
    """

    view: DeskView


@dataclass(frozen=True, slots=True)
class PositionDifference:
    """One symbol that is not the same everywhere, in signed units.

    Attributes:
        symbol: Its name.
        server: As the server booked it.
        recorded: As the recorded fills add up to.
        venue: As the venue has it.
    """

    symbol: str
    server: float
    recorded: float
    venue: float


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A comparison of positions at the venue, in the outbox and at the server.

    Attributes:
        conclusive: The server had answered every report, and gave its positions.
        differences: By symbol; empty: all agree.
        text: Why it was not conclusive.
    """

    conclusive: bool
    differences: tuple[PositionDifference, ...] = ()
    text: str = ""

    @property
    def agrees(self) -> bool:
        """Whether new risk may be taken on."""
        return self.conclusive and not self.differences


@dataclass(frozen=True, slots=True)
class ReportRefused:
    """The server will never take a report.

    Attributes:
        report: The report, and the server's words.
    """

    report: RefusedReport


@dataclass(frozen=True, slots=True)
class GatewayFailed:
    """Something that the gateway cannot do without does not work: nothing is executed any more.

    Attributes:
        error: What was raised.
    """

    error: Exception


GatewayEvent = OrderEnded | DeskChanged | Reconciliation | ReportRefused | GatewayFailed
"""What a gateway notices."""
