"""Which listener serves what."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

import structlog

from tickgate_server.engine import Engine
from tickgate_server.rpc import reflection
from tickgate_server.rpc.admin import ADMIN_NAME, Admin, ReadLimits
from tickgate_server.rpc.alias_trail import AliasTrail
from tickgate_server.rpc.elsewhere import Elsewhere
from tickgate_server.rpc.health import HEALTH_NAME, SERVICE_NAME, HealthBoard
from tickgate_server.rpc.market_data import MARKET_DATA_NAME, MarketData
from tickgate_server.rpc.methods import Method
from tickgate_server.rpc.model_board import ModelBoard
from tickgate_server.rpc.models import MODEL_NAME, Models, PromotionTerms
from tickgate_server.rpc.portfolio import PORTFOLIO_NAME, Portfolio
from tickgate_server.rpc.topology import TOPOLOGY_NAME, Topology

_LOG = structlog.get_logger()

ListenerName: TypeAlias = Literal["data", "service", "admin"]

# How often the desk is given a turn, busy or idle.
POLL_S = 0.02


class Extension(Protocol):
    """A service beside tickgate's own.

    Attributes:
        name: Full, for reflection.
    """

    name: str

    def serving(self) -> Sequence[Method]:
        """What the service listener has of it."""

    def controlling(self) -> Sequence[Method]:
        """What the admin listener has of it."""

    def close(self) -> None:
        """End its threads: from then on none tells an answer."""


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
        extension: See there.
    """

    def __init__(
        self,
        engine: Engine,
        read_limits: ReadLimits,
        promotion: PromotionTerms,
        *,
        worker: int = 0,
        workers: int = 1,
        extension: Extension | None = None,
    ) -> None:
        self.board = HealthBoard()
        self._poll: Callable[[], None] = engine.desk.poll
        self._failing = False
        self._elsewhere = Elsewhere()
        self._portfolio = Portfolio(engine.desk)
        self._market_data = MarketData(engine.ingestion)
        self._flush: Callable[[], None] = engine.ingestion.flush
        self._extension = extension
        self._admin = Admin(engine.desk, read_limits, worker=worker, workers=workers)
        self._trail = AliasTrail(engine)
        self._models = Models(engine.models, ModelBoard(engine, self.board), promotion, self._elsewhere)

    def methods(self, topology: Topology) -> dict[ListenerName, Sequence[Method]]:
        """The table of each listener.

        Args:
            topology: What GetTopology answers.
        """
        portfolio = (*self._portfolio.reports(), *self._portfolio.reading())
        extension = self._extension
        named = () if extension is None else (extension.name,)
        return {
            "data": (
                topology.method(),
                *self.board.methods(),
                reflection.method(SERVICE_NAME, TOPOLOGY_NAME, HEALTH_NAME),
            ),
            "service": (
                *portfolio,
                *self._market_data.methods(),
                *(() if extension is None else extension.serving()),
                reflection.method(PORTFOLIO_NAME, MARKET_DATA_NAME, *named),
            ),
            "admin": (
                *self._admin.methods(),
                *self._models.methods(),
                *self._portfolio.reading(),
                *(() if extension is None else extension.controlling()),
                reflection.method(ADMIN_NAME, MODEL_NAME, PORTFOLIO_NAME, *named),
            ),
        }

    def drain(self) -> None:
        """Say so, and hold nothing back: no more is to come."""
        self.board.draining()
        self._flush()

    def close(self) -> None:
        """End threads other than the one that answers, before what they tell it with is gone."""
        if self._extension is not None:
            self._extension.close()

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
