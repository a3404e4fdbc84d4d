"""States that were taken from a store and wait for their symbol's next tick to show that it goes on from there.

Until then the symbol's row is blank: nothing of a stored state is ever served, sized by or counted before. Then it is
put into the row, or, where the tick does not go on from it, dropped, and the row begins anew. What becomes of it
follows from the tick and the state alone, so a replay comes to the same.

A tick goes on from a state if
- its sequence is the one behind the state's highest, or behind that of the trade that the state holds back;
- or it is among the state's last 1,024, and not younger than its last: the rules then find it to be the latest once
  more, or a duplicate, as they would have without the restart;
- or it has no sequence, and its stamp is at most the continuation gap behind the state's last.

A tick that the rules reject decides nothing: the state waits on. Only a repeat of the latest leaves no record of a
change behind, so `tell_resumed` is to make one.
"""

from collections.abc import Callable, Iterable, Sequence

from tickgate_server.features.store import FeatureStore
from tickgate_server.states.state import SymbolState, blank, put_state
from tickgate_server.ticks import market
from tickgate_server.ticks.market import MarketState

_NEW = (market.ACCEPTED_NEW, market.ACCEPTED_BOTH)
_KNOWN = (market.ACCEPTED_AGAIN, market.PRICE_JUMP)


def goes_on(state: SymbolState, exchange_ts_ns: int, sequence: int, gap_ns: int) -> bool:
    """Whether a tick goes on from a state; see the module's docstring."""
    behind_ns = exchange_ts_ns - state.last_stamp_ns
    if sequence == 0:
        return 0 <= behind_ns <= gap_ns
    highest = state.last_sequence
    if highest == 0:
        return False
    if sequence == highest + 1:
        return True
    if state.stamps[market.HELD_KIND] > 0 and sequence == int(state.sequences[market.HELD_SEQUENCE]) + 1:
        return True
    known = min(int(state.stamps[market.ACCEPTED]), market.RECENT)
    recent = state.sequences[market.RECENT_AT : market.RECENT_AT + known]
    return behind_ns <= 0 and bool((recent == sequence).any())


class WaitingStates:
    """States by symbol, on the thread that applies ticks.

    Attributes:
        changes: How often what waits was another.
        tell_resumed: Called with the symbol before its state is put in force by a repeat of its latest tick; what it
            raises is passed on, and the state waits on.

    Args:
        gap_ns: The continuation gap.
    """

    def __init__(self, gap_ns: int) -> None:
        self.tell_resumed: Callable[[str], None] = lambda symbol: None  # noqa: ARG005 - nobody asked
        self.changes = 0
        self._gap_ns = gap_ns
        self._states: dict[str, SymbolState] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._states

    def add(self, states: Iterable[SymbolState]) -> None:
        """Have these wait, each in place of its symbol's older one; of a symbol whose row is not blank none is used."""
        self.changes += 1
        for state in states:
            self._states[state.symbol] = state

    def ticks_of(self, symbol: str) -> int:
        """Accepted ticks in the state that waits for a symbol, from its begin; 0 where none does."""
        found = self._states.get(symbol)
        return 0 if found is None else found.ticks

    def all(self) -> list[SymbolState]:
        """What waits."""
        return list(self._states.values())

    def try_on(
        self,
        symbol: str,
        row: int,
        exchange_ts_ns: int,
        sequence: int,
        state: MarketState,
        stores: Sequence[FeatureStore],
    ) -> bool | None:
        """Before a tick is judged: put what waits for it into its row, if it goes on from there.

        Returns:
            None: the row is not blank, or nothing waits for the symbol. Else whether it was put there, for `settle`.
        """
        found = self._states.get(symbol)
        if found is None:
            return None
        if state.stamps[row, market.LAST_KIND]:  # its ticks were here before the state
            self._drop(symbol)
            return None
        fits = goes_on(found, exchange_ts_ns, sequence, self._gap_ns)
        if fits:
            put_state(found, row, state, stores)
        return fits

    def settle(
        self, symbol: str, row: int, verdict: int, state: MarketState, stores: Sequence[FeatureStore], *, fits: bool
    ) -> bool:
        """After the tick was judged by `market.apply`: keep to it, drop it, or have it wait on.

        Returns:
            Whether the stored state is in force from here on.
        """
        if fits and verdict not in _NEW + _KNOWN:
            blank(row, state, stores)
            return False
        if verdict == market.ACCEPTED_AGAIN:
            try:
                self.tell_resumed(symbol)
            except BaseException:
                blank(row, state, stores)
                raise
        if fits or verdict in _NEW:
            self._drop(symbol)
        return fits

    def resume(self, symbol: str, row: int, state: MarketState, stores: Sequence[FeatureStore]) -> None:
        """Put a state in force, as a repeat of its latest tick did.

        Raises:
            KeyError: None waits for the symbol.
        """
        put_state(self._states[symbol], row, state, stores)
        self._drop(symbol)

    def _drop(self, symbol: str) -> None:
        del self._states[symbol]
        self.changes += 1
