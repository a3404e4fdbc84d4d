"""Each served vector beside training's features of the same tick, bit for bit.

Whose tick it is says the feed's number, or where there is none the stamp, and which of the symbol's ticks with that
stamp it is. Training's features are those of the whole file. Where the windows of a server had begun later, because it
was started then, they are those of the file from the first tick on that this server took in: how many trades its
windows held is in the journal. A price or a size that the file has otherwise than the journal is a difference too.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features.fundamentals_table import FundamentalsTable
from tickgate_server.features.schema import FeatureSet
from tickgate_training.parity.file_ticks import ABSENT, REJECTED, FileTicks, OfSymbol
from tickgate_training.parity.served import Applied, Began, Decided, Event, Why


@dataclass(frozen=True, slots=True)
class Difference:
    """The first field in which a decision differs.

    Attributes:
        record: Sequence of the decision in its journal.
        symbol: Its symbol.
        sequence: The feed's number of the tick; 0: none.
        stamp_ns: The tick's time.
        line: Of the file; of captures and bars the place of the trade among those accepted.
        field: A feature's name; or `price` or `size` of the tick, or `width` of the vector.
        served, training: Both values.
    """

    record: int
    symbol: str
    sequence: int
    stamp_ns: int
    line: int
    field: str
    served: float
    training: float


@dataclass(slots=True)
class Compared:
    """What was found.

    Attributes:
        decisions: Looked at.
        equal, different: Of those compared.
        without: Decisions not compared, by why.
        differences: The first of them, at most `keep`.
        by_field: In how many decisions each field differs.
    """

    decisions: int = 0
    equal: int = 0
    different: int = 0
    without: Counter[Why] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    by_field: Counter[str] = field(default_factory=Counter)

    @property
    def compared(self) -> int:
        """Decisions that were compared."""
        return self.equal + self.different

    @property
    def holds(self) -> bool:
        """Whether training and serving are shown to agree: something was compared, and nothing differs."""
        return self.equal > 0 and self.different == 0


class Comparison:
    """Compares what one or several journals served with a file.

    Attributes:
        result: So far.

    Args:
        ticks: Of the file.
        schemas: Known feature sets by schema id.
        known: Fundamentals, for sets that have some.
        keep: Most differences to tell one by one.
    """

    def __init__(
        self, ticks: FileTicks, schemas: dict[str, FeatureSet], known: FundamentalsTable | None, keep: int
    ) -> None:
        self.result = Compared()
        self._ticks = ticks
        self._schemas = schemas
        self._known = known
        self._keep = keep
        self._runs: dict[tuple[str, str, int], tuple[NDArray[np.float32], NDArray[np.int64]]] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Compare what one journal tells."""
        places = _Places(self._ticks)
        for event in events:
            if isinstance(event, Began):
                places.begin()
            elif isinstance(event, Applied):
                places.apply(event)
            else:
                self.result.decisions += 1
                why = event.why or self._compare(event, places)
                if why is not None:
                    self.result.without[why] += 1

    def _compare(self, decided: Decided, places: "_Places") -> Why | None:
        schema = self._schemas.get(decided.schema_id)
        if schema is None:
            return Why.OTHER_FEATURES
        if schema.fundamentals and self._known is None:
            return Why.NO_FUNDAMENTALS
        row = places.row_of(decided)
        if row < 0:
            absent = Why.ABSENT if decided.of_tick else Why.NO_TICK
            return Why.REJECTED_IN_FILE if row == REJECTED else absent
        found = self._fields(decided, schema, self._ticks.symbols[decided.symbol], row, places.first[decided.symbol])
        if not found:
            self.result.equal += 1
            return None
        self.result.different += 1
        self.result.by_field.update(name for name, _, _ in found)
        if len(self.result.differences) < self._keep:
            of_symbol = self._ticks.symbols[decided.symbol]
            self.result.differences.append(
                Difference(
                    decided.sequence,
                    decided.symbol,
                    int(of_symbol.sequences[row]),
                    int(of_symbol.stamps_ns[row]),
                    int(of_symbol.lines[row]),
                    *found[0],
                )
            )
        return None

    def _fields(
        self, decided: Decided, schema: FeatureSet, of_symbol: OfSymbol, row: int, first: int
    ) -> list[tuple[str, float, float]]:
        """Every field that differs, with both values."""
        found = []
        if decided.of_tick and decided.has_trade:
            price, size = of_symbol.values[row, :2].tolist()
            both = (("price", decided.price, price), ("size", decided.size, size))
            found += [one for one in both if one[1] != one[2]]
        if decided.vector.size != schema.width:
            return [*found, ("width", float(decided.vector.size), float(schema.width))]
        own = self._vector(decided, schema, of_symbol, row, first)
        places = np.flatnonzero(own.view(np.uint32) != decided.vector.view(np.uint32))
        found += [(schema.features[at], float(decided.vector[at]), float(own[at])) for at in places.tolist()]
        return found

    def _vector(
        self, decided: Decided, schema: FeatureSet, of_symbol: OfSymbol, row: int, first: int
    ) -> NDArray[np.float32]:
        """Training's vector of a row: of the whole file, or of what its server took in if its windows began there."""
        whole, trades = self._run(decided.symbol, schema, of_symbol, 0)
        if trades[row] != decided.trades and first > 0:
            later, _ = self._run(decided.symbol, schema, of_symbol, first)
            return np.asarray(later[row - first])
        return np.asarray(whole[row])

    def _run(
        self, symbol: str, schema: FeatureSet, of_symbol: OfSymbol, begin: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        key = (symbol, schema.schema_id, begin)
        if key not in self._runs:
            vectors = of_symbol.compute(schema, begin, self._known, symbol)
            self._runs[key] = (vectors, of_symbol.trades_in_window(schema.session_gap_ns, begin))
        return self._runs[key]


class _Places:
    """Where in the file a journal stands.

    Attributes:
        first: Of each symbol the first row that the server of now took in.
    """

    def __init__(self, ticks: FileTicks) -> None:
        self.first: dict[str, int] = {}
        self._symbols = ticks.symbols
        self._last: dict[str, int] = {}
        self._of_ticket: dict[int, int] = {}
        self._taken: Counter[tuple[str, int]] = Counter()

    def begin(self) -> None:
        """A server begins."""
        self.first.clear()
        self._last.clear()
        self._of_ticket.clear()

    def apply(self, tick: Applied) -> None:
        """A tick was applied."""
        row = self._find(tick)
        if row < 0:
            self._last[tick.symbol] = row
        else:
            self.first.setdefault(tick.symbol, row)
            self._last[tick.symbol] = row
        if tick.ticket:
            self._of_ticket[tick.ticket] = row

    def row_of(self, decided: Decided) -> int:
        """The file's row whose vector a decision is about; ABSENT or REJECTED."""
        if decided.ticket and decided.of_tick:
            return self._of_ticket.get(decided.ticket, ABSENT)
        if decided.of_tick and decided.number:
            of_symbol = self._symbols.get(decided.symbol)
            return ABSENT if of_symbol is None else of_symbol.by_sequence.get(decided.number, ABSENT)
        return self._last.get(decided.symbol, ABSENT)

    def _find(self, tick: Applied) -> int:
        of_symbol = self._symbols.get(tick.symbol)
        if of_symbol is None:
            return ABSENT
        if tick.number:
            return of_symbol.by_sequence.get(tick.number, ABSENT)
        rows = of_symbol.by_stamp.get(tick.stamp_ns, ())
        place = self._taken[tick.symbol, tick.stamp_ns]
        self._taken[tick.symbol, tick.stamp_ns] += 1
        return rows[place] if place < len(rows) else ABSENT
