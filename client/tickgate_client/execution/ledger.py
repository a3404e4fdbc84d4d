"""What an outbox's records add up to. Recovery and work go through the same `apply`."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tickgate.v1 import portfolio_pb2
from tickgate_client.execution.account import Account, Holding
from tickgate_client.execution.errors import OutboxDamaged
from tickgate_client.execution.orders import Fill, Side
from tickgate_client.execution.records import FORMAT, Kind

REMEMBERED = 65_536
"""Fill ids and order ids that repeats are known by; as many as the server keeps."""

REFUSALS = 1024
"""Refused reports that are kept to be looked at."""

_DUST = 1e-9


@dataclass(slots=True)
class BegunOrder:
    """An approved order that was begun and has not ended.

    Attributes:
        order_id: The server's.
        symbol: Its own.
        side: Its side.
        size: Units.
        arrival_price: Of the market when it was asked for; None: not known.
        filled: Units, as recorded.
    """

    order_id: int
    symbol: str
    side: Side
    size: float
    arrival_price: float | None = None
    filled: float = 0.0


@dataclass(frozen=True, slots=True)
class RefusedReport:
    """A report that the server will never take.

    Attributes:
        sequence: Its number.
        report: As it was sent.
        code: google.rpc.Code.
        message: The server's words.
    """

    sequence: int
    report: portfolio_pb2.ReportRequest
    code: int
    message: str


class OutboxLedger:
    """The state that the records make.

    Args:
        account: Empty.

    Attributes:
        account: What all fills add up to, corrections included.
        begun: Orders that have not ended, by the server's id.
        waiting: Reports that the server has not answered, by number, the oldest first.
        refused: Reports that it will never take.
        newest_fill_ns: Time of the newest fill, on the venue's clock; 0: none.
        next_sequence: Number of the next report.
        revision: Grows with each fill and each correction.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.begun: dict[int, BegunOrder] = {}
        self.waiting: OrderedDict[int, portfolio_pb2.ReportRequest] = OrderedDict()
        self.refused: deque[RefusedReport] = deque(maxlen=REFUSALS)
        self.newest_fill_ns = 0
        self.next_sequence = 1
        self.revision = 0
        self._fills: OrderedDict[str, str] = OrderedDict()
        self._order_ids: OrderedDict[int, None] = OrderedDict()

    def knows_order(self, order_id: int) -> bool:
        """Whether an order was begun before."""
        return order_id in self._order_ids

    def content_of(self, fill_id: str) -> str | None:
        """What a fill was recorded with; None: it was not, or too long ago."""
        return self._fills.get(fill_id)

    def apply(self, path: Path, kind: Kind, body: dict[str, Any]) -> None:
        """Take in one record; raises OutboxDamaged for one that no outbox writes."""
        try:
            self._apply(path, kind, body)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, OutboxDamaged):
                raise
            raise OutboxDamaged(path, 0, found=f"a record {kind.name} that lacks or garbles {error}") from error

    def _apply(self, path: Path, kind: Kind, body: dict[str, Any]) -> None:
        if kind is Kind.FILL:
            self._take_fill(Fill(**{**body["fill"], "side": Side(body["fill"]["side"])}), body["order_id"])
            self._wait(body["sequence"], fill_report(body["fill"], body["order_id"]))
        elif kind is Kind.STATE:
            if body["state"] != portfolio_pb2.ORDER_STATE_ACCEPTED:
                self.begun.pop(body["order_id"], None)
            self._wait(body["sequence"], state_report(body["order_id"], body["symbol"], body["state"]))
        elif kind is Kind.ORDER:
            self.begun[body["order_id"]] = BegunOrder(**{**body, "side": Side(body["side"])})
            _remember(self._order_ids, body["order_id"], None)
        elif kind is Kind.ACKNOWLEDGED:
            self.waiting.pop(body["sequence"], None)
        elif kind is Kind.REFUSED:
            report = self.waiting.pop(body["sequence"], None)
            if report is not None:
                self.refused.append(RefusedReport(body["sequence"], report, body["code"], body["message"]))
        elif kind is Kind.CORRECTION:
            self.account.holdings.setdefault(body["symbol"], Holding()).position = body["position"]
            self.revision += 1
        else:
            self._load(path, body)

    def _take_fill(self, fill: Fill, order_id: int) -> None:
        begun = self.begun.get(order_id)
        arrival_price = None if begun is None else begun.arrival_price
        self.account.book(fill, math.nan if arrival_price is None else arrival_price)
        self.revision += 1
        self.newest_fill_ns = max(self.newest_fill_ns, fill.exchange_ts_ns)
        _remember(self._fills, fill.fill_id, content(fill))
        if begun is not None:
            begun.filled += fill.size
            if begun.filled >= begun.size * (1.0 - _DUST):
                del self.begun[order_id]

    def _wait(self, sequence: int, report: portfolio_pb2.ReportRequest) -> None:
        self.waiting[sequence] = report
        self.next_sequence = sequence + 1

    def snapshot(self) -> dict[str, Any]:
        """All of it, as the body of a record."""
        return {
            "format": FORMAT,
            "next_sequence": self.next_sequence,
            "newest_fill_ns": self.newest_fill_ns,
            "account": {symbol: asdict(held) for symbol, held in self.account},
            "fills": list(self._fills.items()),
            "order_ids": list(self._order_ids),
            "begun": [asdict(order) for order in self.begun.values()],
            "waiting": [[at, report.SerializeToString().hex()] for at, report in self.waiting.items()],
            "refused": [
                [one.sequence, one.report.SerializeToString().hex(), one.code, one.message] for one in self.refused
            ],
        }

    def _load(self, path: Path, body: dict[str, Any]) -> None:
        if body["format"] != FORMAT:
            raise OutboxDamaged(path, 0, found=f"format {body['format']}")
        self.next_sequence, self.newest_fill_ns = body["next_sequence"], body["newest_fill_ns"]
        self.account.holdings = {symbol: Holding(**held) for symbol, held in body["account"].items()}
        self._fills = OrderedDict(body["fills"])
        self._order_ids = OrderedDict.fromkeys(body["order_ids"])
        self.begun = {one["order_id"]: BegunOrder(**{**one, "side": Side(one["side"])}) for one in body["begun"]}
        self.waiting = OrderedDict((at, _report(data)) for at, data in body["waiting"])
        self.refused.extend(RefusedReport(at, _report(data), code, text) for at, data, code, text in body["refused"])


def content(fill: Fill) -> str:
    """What makes two fills of one id the same."""
    return f"{fill.order_id}|{fill.symbol}|{fill.side:d}|{fill.size!r}|{fill.price!r}|{fill.fee!r}"


def fill_report(fill: dict[str, Any], order_id: int) -> portfolio_pb2.ReportRequest:
    """A fill as the server takes it."""
    said = {name: fill[name] for name in ("fill_id", "symbol", "side", "size", "price", "fee", "exchange_ts_ns")}
    return portfolio_pb2.ReportRequest(fill=portfolio_pb2.ReportFillRequest(**said, order_id=order_id))


def state_report(order_id: int, symbol: str, state: portfolio_pb2.OrderState.ValueType) -> portfolio_pb2.ReportRequest:
    """What became of an order as the server takes it."""
    return portfolio_pb2.ReportRequest(
        order=portfolio_pb2.ReportOrderRequest(symbol=symbol, state=state, order_id=order_id)
    )


def is_recordable(fill: Fill) -> bool:
    """Whether its numbers are ones that the server takes."""
    return 0.0 < fill.size < math.inf and 0.0 < fill.price < math.inf and math.isfinite(fill.fee)


def _report(data: str) -> portfolio_pb2.ReportRequest:
    return portfolio_pb2.ReportRequest.FromString(bytes.fromhex(data))


def _remember(table: OrderedDict[Any, Any], key: object, value: object) -> None:
    table[key] = value
    if len(table) > REMEMBERED:
        table.popitem(last=False)
