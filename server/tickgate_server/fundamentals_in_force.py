"""Fundamentals as one engine has them: taken over between two requests, and the journal names what came into force."""

from collections.abc import Callable

import structlog

from tickgate_server.features.fundamentals import KnownFundamentals
from tickgate_server.features.fundamentals_feed import FundamentalsFeed
from tickgate_server.features.fundamentals_table import FundamentalsTable
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.ticks.symbols import SymbolTable

_LOG = structlog.get_logger()


class FundamentalsInForce:
    """What is known of each symbol beside its ticks; on the thread that decides.

    Args:
        known: What feature stores read.
        symbols: Rows of the symbols.
        feed: Of newer tables; None: there is none.
        journal: Is told what comes into force; None: there is none.
        now_ns: The time that such a record carries.
    """

    def __init__(
        self,
        known: KnownFundamentals,
        symbols: SymbolTable,
        feed: FundamentalsFeed | None,
        journal: JournalWriter | None,
        now_ns: Callable[[], int],
    ) -> None:
        self._known = known
        self._symbols = symbols
        self._feed = feed
        self._journal = journal
        self._now_ns = now_ns
        for row, symbol in enumerate(symbols.names):
            known.add_row(row, symbol)

    def add_row(self, row: int, symbol: str) -> None:
        """A symbol has got its row."""
        self._known.add_row(row, symbol)

    def poll(self) -> None:
        """Take over what was read in the meantime; the journal names it by the hash that it is kept under."""
        found = None if self._feed is None else self._feed.take()
        if found is None:
            return
        if self._journal is not None:
            payload = {"sha256": found.sha256}
            self._journal.append_control(ControlKind.FUNDAMENTALS, payload, clock_ns=self._now_ns())
        self.adopt(found.table)

    def adopt(self, table: FundamentalsTable) -> None:
        """Put another table in force, from the next request on."""
        absent = self._known.adopt(table, self._symbols.names)
        if absent:
            _LOG.warning("fundamentals lack names that models take: these are not ready", names=absent)

    def close(self) -> None:
        """End what reads."""
        if self._feed is not None:
            self._feed.close()
