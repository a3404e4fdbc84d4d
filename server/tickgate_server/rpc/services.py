"""Which listener serves what."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import structlog

from tickgate_server.engine import Engine
from tickgate_server.rpc import reflection
from tickgate_server.rpc.admin import ADMIN_NAME, Admin, ReadLimits
from tickgate_server.rpc.alias_trail import AliasTrail
from tickgate_server.rpc.elsewhere import Elsewhere
from tickgate_server.rpc.health import HEALTH_NAME, SERVICE_NAME, HealthBoard
from tickgate_server.rpc.methods import Method
from tickgate_server.rpc.model_board import ModelBoard
from tickgate_server.rpc.models import MODEL_NAME, Models, PromotionTerms
from tickgate_server.rpc.portfolio import PORTFOLIO_NAME, Portfolio
from tickgate_server.rpc.topology import TOPOLOGY_NAME, Topology

_LOG = structlog.get_logger()

ListenerName: TypeAlias = Literal["data", "service", "admin"]

# How often the desk is given a turn, busy or idle.
POLL_S = 0.02


class Services:
    """All methods beside Predict and PredictStream, which are each transport's own; one thread.

    Attributes:
        board: What health tells.

    Args:
        engine: With its desk.
        read_limits: See `rpc.admin.ReadLimits`.
        worker: Index of this worker.
        workers: How many the server has.
        promotion: What versions are held to that are to be production.
    """

    def __init__(
        self,
        engine: Engine,
        read_limits: ReadLimits,
        promotion: PromotionTerms,
        *,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        self.board = HealthBoard()
        self._poll: Callable[[], None] = engine.desk.poll
        self._failing = False
        self._elsewhere = Elsewhere()
        self._portfolio = Portfolio(engine.desk)
        self._admin = Admin(engine.desk, read_limits, worker=worker, workers=workers)
        self._trail = AliasTrail(engine)
        self._models = Models(engine.models, ModelBoard(engine, self.board), promotion, self._elsewhere)

    def methods(self, topology: Topology) -> dict[ListenerName, Sequence[Method]]:
        """The table of each listener.

        Args:
            topology: What GetTopology answers.
        """
        portfolio = (*self._portfolio.reports(), *self._portfolio.reading())
        return {
            "data": (
                topology.method(),
                *self.board.methods(),
                reflection.method(SERVICE_NAME, TOPOLOGY_NAME, HEALTH_NAME),
            ),
            "service": (*portfolio, reflection.method(PORTFOLIO_NAME)),
            "admin": (
                *self._admin.methods(),
                *self._models.methods(),
                *self._portfolio.reading(),
                reflection.method(ADMIN_NAME, MODEL_NAME, PORTFOLIO_NAME),
            ),
        }

    def poll(self) -> None:
        """Give the desk its turn, and hand over what was done elsewhere.

        An error is in the log, once until it is over, and ends nothing.
        """
        try:
            self._poll()
            self._elsewhere.poll()
        except Exception as error:  # noqa: BLE001 - the answering thread must go on
            if not self._failing:
                _LOG.error("a turn failed", exc_info=error)
            self._failing = True
        else:
            self._failing = False
