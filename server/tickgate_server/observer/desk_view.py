"""The desk of one journal as its records tell of it: trading state, what the gate measured last, positions, changes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import ControlKind, Flags
from tickgate_server.journal.segments import Rows
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import Side

WANTED = (
    ControlKind.SETTINGS,
    ControlKind.LIMITS,
    ControlKind.WARM_START,
    ControlKind.TRADING_STATE,
    ControlKind.FILL,
    ControlKind.POSITIONS,
    ControlKind.CONTROL_BLOCK,
    ControlKind.ALIAS,
)
"""Controls that it depends on; those about single versions are the tail's."""

MAX_ALIASES = 256
_LIMITS = ("max_var", "max_gross_exposure", "max_net_exposure", "max_daily_loss", "max_drawdown")
# The order that was asked for is in what the gate measured. It is open afterwards only where it was approved.
_WITHOUT_ANOTHER = [int(Reason.APPROVED), int(Reason.SIZING_BELOW_MINIMUM)]
# A position below this part of a lot is none, as in risk.portfolio.
_DUST = 1e-9
_LOT = 1e-8  # of a symbol that no instrument file has
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class State:
    """A trading state: who set it, why, and when; nobody where it is known only from what the gate measured."""

    state: TradingState
    reason: str
    who: str
    since_ns: int


@dataclass(slots=True)
class Measured:
    """What the gate measured, in the base currency, and when; NaN where it did not, or could not.

    Exposures and value at risk are of the last decision that was approved or asked for no order, the others of the
    last that was judged.
    """

    clock_ns: int = 0
    gross: float = _NAN
    net: float = _NAN
    value_at_risk: float = _NAN
    profit: float = _NAN
    drawdown: float = _NAN


class DeskView:
    """Follows the records of one journal.

    Attributes:
        state: None before any record told of it.
        measured: None before any decision was judged.
        limits: By key, those of the whole desk that are not off.
        fresh: Whether risk data count as known; None before any record told.
        aliases: Version by model and alias, None for none; of the first `MAX_ALIASES` pairs.
        alias_changes: How often each alias came to mean another version.
        var_refused_ns: Clock of the last decision that value at risk refused though it was known; 0: none.
    """

    def __init__(self) -> None:
        self.state: State | None = None
        self.measured: Measured | None = None
        self.limits: dict[str, float] = {}
        self.fresh: bool | None = None
        self.aliases: dict[tuple[str, str], int | None] = {}
        self.alias_changes: Counter[str] = Counter()
        self.var_refused_ns = 0
        self._positions: dict[str, float] | None = None
        self._lots: dict[str, float] = {}

    @property
    def positions(self) -> int | None:
        """Symbols that something is held of; None where the server's start is not in what was read."""
        return None if self._positions is None else len(self._positions)

    def add(self, decisions: Rows, checks: Sequence[str]) -> None:
        """Take in records of `layout.DECISION`.

        Args:
            decisions: Ascending.
            checks: Names of their measured values, in order, as the segment's header has them.
        """
        judged = np.flatnonzero(decisions["judged"] & ((decisions["flags"] & Flags.REPEATED) == 0))
        if not judged.size:
            return
        places = {name: place for place, name in enumerate(checks)}
        reasons = decisions["reason"][judged]

        def value(row: np.void, reason: Reason) -> float:
            place = places.get(reason.name)
            return float(row["checks"][place]) if place is not None and place < row["check_count"] else _NAN

        last = decisions[judged[-1]]
        found = self.measured = self.measured or Measured()
        found.clock_ns = int(last["clock_ns"])
        found.profit = 0.0 - value(last, Reason.LOSS_DAILY)
        found.drawdown = value(last, Reason.LOSS_DRAWDOWN)
        settled = judged[np.isin(reasons, _WITHOUT_ANOTHER)]
        if settled.size:
            row = decisions[settled[-1]]
            found.gross = value(row, Reason.EXPOSURE_GROSS)
            found.net = value(row, Reason.EXPOSURE_NET)
            found.value_at_risk = value(row, Reason.VAR_PORTFOLIO)
        for at in judged[reasons == Reason.VAR_PORTFOLIO][-1:]:
            if math.isfinite(value(decisions[at], Reason.VAR_PORTFOLIO)):
                self.var_refused_ns = int(decisions[at]["clock_ns"])
        if self.state is None:
            self._infer_state(value(last, Reason.TRADING_STATE_HALTED), found.clock_ns)

    def feed(self, control: ControlEntry) -> None:
        """Take in a control, in the journal's order with the decisions of its batch behind it."""
        payload = control.payload
        if control.code == ControlKind.SETTINGS:
            self._begin(payload)
        elif control.code == ControlKind.LIMITS:
            given = {name: payload.get(name) for name in _LIMITS}
            self.limits = {name: float(value) for name, value in given.items() if isinstance(value, int | float)}
        elif control.code == ControlKind.WARM_START:
            self._take_piece(payload)
        elif control.code == ControlKind.TRADING_STATE:
            self._set_state(payload, control.clock_ns)
        elif control.code == ControlKind.FILL:
            size = float(payload["size"])
            self._move(str(payload["symbol"]), size if payload["side"] == Side.BUY else -size)
        elif control.code == ControlKind.POSITIONS:
            for position in payload["positions"]:
                self._hold(str(position["symbol"]), float(position["size"]))
        elif control.code == ControlKind.CONTROL_BLOCK and "fresh" in payload:
            self.fresh = bool(payload["fresh"])
        elif control.code == ControlKind.ALIAS:
            self._point(payload, restated=control.restated)

    def _begin(self, settings: Mapping[str, Any]) -> None:
        """A server starts: what it holds follows, and freshness is told when it changes from not fresh."""
        self._positions = {}
        self.fresh = False
        self._lots = {str(one["symbol"]): float(one.get("lot", _LOT)) for one in settings.get("instruments", [])}

    def _take_piece(self, piece: Mapping[str, Any]) -> None:
        account = piece.get("account")
        if account is not None:
            self._set_state(account, int(account["since_ns"]))
        for symbol, filled, *_ in piece.get("rows", ()):
            self._hold(str(symbol), float(filled))

    def _set_state(self, said: Mapping[str, Any], since_ns: int) -> None:
        self.state = State(TradingState(said["state"]), str(said["reason"]), str(said["who"]), since_ns)

    def _infer_state(self, measured: float, clock_ns: int) -> None:
        """Of a journal whose beginning is gone: the gate measures the trading state too."""
        if measured in {float(state) for state in TradingState}:
            self.state = State(TradingState(int(measured)), "", "", clock_ns)

    def _move(self, symbol: str, signed: float) -> None:
        if self._positions is not None:
            self._hold(symbol, self._positions.get(symbol, 0.0) + signed)

    def _hold(self, symbol: str, size: float) -> None:
        if self._positions is None:
            return
        if abs(size) < _DUST * self._lots.get(symbol, _LOT):
            self._positions.pop(symbol, None)
        else:
            self._positions[symbol] = size

    def _point(self, said: Mapping[str, Any], *, restated: bool) -> None:
        key = (str(said["name"]), str(said["alias"]))
        version = None if said["version"] is None else int(said["version"])
        known = key in self.aliases
        if known and version != self.aliases[key] and not restated:
            self.alias_changes[key[1]] += 1
        if known or len(self.aliases) < MAX_ALIASES:
            self.aliases[key] = version
