"""`AdminService`: what a person does to the desk, each with a reason, over one desk."""

from collections.abc import Callable
from typing import TypeAlias

from tickgate.v1 import admin_pb2 as pb
from tickgate.v1 import signal_pb2
from tickgate_server.desk import Desk
from tickgate_server.errors import FieldInvalid
from tickgate_server.risk.limits import SLICED, Limits
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import PositionSet
from tickgate_server.rpc.methods import Method, UnaryMethod, enum_member, handler
from tickgate_server.rpc.portfolio import state_message

ADMIN_NAME: str = pb.DESCRIPTOR.services_by_name["AdminService"].full_name

# Most positions of one call.
POSITIONS = 4096
_NOBODY = "unknown"

# Reads the limits file anew, and gives what `Desk.change_limits` takes; raises `LimitsFileInvalid`.
ReadLimits: TypeAlias = Callable[[], Limits]


class Admin:
    """The service's methods over one desk.

    Args:
        desk: The one.
        read_limits: See `ReadLimits`.
        worker: Index of this worker.
        workers: How many the server has.
    """

    def __init__(self, desk: Desk, read_limits: ReadLimits, *, worker: int = 0, workers: int = 1) -> None:
        self._desk = desk
        self._read_limits = read_limits
        self._worker = worker
        self._workers = workers

    def methods(self) -> tuple[Method, ...]:
        """All of them."""
        return (
            UnaryMethod(_path("SetTradingState"), handler(pb.SetTradingStateRequest, self._set_trading_state)),
            UnaryMethod(_path("SetPositions"), handler(pb.SetPositionsRequest, self._set_positions)),
            UnaryMethod(_path("GetLimits"), handler(pb.GetLimitsRequest, self._get_limits)),
            UnaryMethod(_path("ReloadLimits"), handler(pb.ReloadLimitsRequest, self._reload_limits)),
            UnaryMethod(_path("ReopenModel"), handler(pb.ReopenModelRequest, self._reopen_model)),
        )

    def _set_trading_state(self, request: pb.SetTradingStateRequest) -> pb.SetTradingStateResponse:
        state = enum_member("state", request.state, TradingState, signal_pb2.TradingState)
        view = self._desk.set_state(state, reason=_reason(request.reason), who=request.who or _NOBODY)
        return pb.SetTradingStateResponse(desk=state_message(view))

    def _set_positions(self, request: pb.SetPositionsRequest) -> pb.SetPositionsResponse:
        reason = _reason(request.reason)
        if not 1 <= len(request.positions) <= POSITIONS:
            raise FieldInvalid("positions", f"1 to {POSITIONS:,}", len(request.positions))
        positions = [PositionSet(one.symbol, one.size, one.average_cost) for one in request.positions]
        self._desk.set_positions(positions, reason=reason, who=request.who or _NOBODY)
        return pb.SetPositionsResponse()

    def _get_limits(self, request: pb.GetLimitsRequest) -> pb.GetLimitsResponse:
        del request
        whole = self._desk.whole
        return pb.GetLimitsResponse(
            whole_json=whole.model_dump_json(),
            limits_json=self._desk.limits.model_dump_json(),
            sliced=SLICED,
            version=whole.version,
            worker_index=self._worker,
            workers=self._workers,
        )

    def _reload_limits(self, request: pb.ReloadLimitsRequest) -> pb.ReloadLimitsResponse:
        reason = _reason(request.reason)
        changes = self._desk.change_limits(self._read_limits(), reason=reason, who=request.who or _NOBODY)
        return pb.ReloadLimitsResponse(changes=changes)

    def _reopen_model(self, request: pb.ReopenModelRequest) -> pb.ReopenModelResponse:
        reason = _reason(request.reason)
        self._desk.reopen_model(request.name, request.version, reason=reason, who=request.who or _NOBODY)
        return pb.ReopenModelResponse()


def _reason(reason: str) -> str:
    if not reason.strip():
        raise FieldInvalid("reason", "some words that say why", reason)
    return reason


def _path(method: str) -> str:
    return f"/{ADMIN_NAME}/{method}"
