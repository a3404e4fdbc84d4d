"""Risk data of one journal's symbols: kept up to date from its trades, written beside its segments for the engine.

With several workers each journal has a file of its own, with its own symbols: an engine holds positions in no others.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import structlog

from tickgate_server.control_block import ControlBlockWriter, Slot
from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.published import PublishedTicks
from tickgate_server.journal.segments import Rows
from tickgate_server.observer.bars import trades_of
from tickgate_server.risk import data as risk_data
from tickgate_server.risk.bars import Bars
from tickgate_server.risk.data import FILE_NAME, RiskData, RiskDataInvalid
from tickgate_server.risk.estimates import RiskEstimates, RiskValueSettings
from tickgate_server.risk.regimes import Regime

WANTED = (ControlKind.SETTINGS, ControlKind.TICK)
"""Controls that it depends on."""
WRITE_EVERY_NS = 1_000_000_000

_LOG = structlog.get_logger()


class RiskValues:
    """Follows trades, writes `risk-data.npz` and says in the control block that it is good.

    It begins with the file that is in the folder: one that the server put there, or the last that an observer wrote.
    Records that are no newer than the file tell of the regimes and of symbols that are not in it.

    Attributes:
        path: The file.
        as_of_s: Time of the newest observation in the file that is good, seconds since the epoch; 0: none is good.
        regimes: Symbols in it by regime.

    Args:
        folder: Of the journal.
        settings: How.

    Raises:
        HiddenMarkovInvalid: The settings' file of parameters cannot be used.
    """

    def __init__(self, folder: Path, settings: RiskValueSettings) -> None:
        self.path = folder / FILE_NAME
        self.as_of_s = self._generation = 0.0  # of the file that is good; 0: none is
        self.regimes: Counter[Regime] = Counter()
        first = self._read()
        self._bars = Bars(settings.bar_s, settings.carry_age_s)
        self._estimates = RiskEstimates(settings, first)
        self._changed = False
        self._written_ns = -WRITE_EVERY_NS
        self._full = False
        self._trouble = ""

    def add(self, decisions: Rows, controls: Sequence[ControlEntry], published: PublishedTicks | None = None) -> None:
        """Take in one batch of the journal's records.

        Args:
            decisions: Of `layout.DECISION`, ascending.
            controls: Those of the batch that are `WANTED`, ascending.
            published: Ticks of the batch that were published; None: there are none.
        """
        for trades in trades_of(decisions, controls, published):
            if trades.after_start:
                self._bars.restart()
            for bar in self._bars.add(trades.symbols, trades.stamps_ns, trades.prices):
                if self._estimates.update(bar, self._bars.symbols):
                    _LOG.warning("risk data too old to begin with", path=str(self.path), next_bar_ns=bar.as_of_ns)
                self._changed = self._estimates.as_of_ns > 0
        if self._bars.ticks_ignored and not self._full:
            self._full = True
            _LOG.error("more symbols than risk data have room for", limit=len(self._bars.symbols))

    def hand_back(self, control: ControlBlockWriter, *, caught_up: bool) -> None:
        """Write the file where a bar has closed since, at most one a second; say in the control block what is good.

        Args:
            control: Of the journal.
            caught_up: Whether all that is in the journal was taken in: while old records are read, nothing is written.
        """
        now_ns = time.monotonic_ns()
        if self._changed and caught_up and now_ns - self._written_ns >= WRITE_EVERY_NS:
            self._written_ns = now_ns
            found = self._estimates.data()
            self._changed = found is not None and not self._write(found)
        if self._generation:
            control.write(Slot.RISK_DATA, self.as_of_s)
            control.write(Slot.RISK_DATA_GENERATION, self._generation)

    def _read(self) -> RiskData | None:
        """The file that is there; None where there is none that can be used."""
        try:
            found = risk_data.read(self.path)
            self._good(found)
        except FileNotFoundError:
            _LOG.info("no risk data to begin with", path=str(self.path))
            return None
        except (RiskDataInvalid, OSError, RuntimeError) as error:  # zipfile's for a header that makes no sense
            _LOG.error("risk data unreadable", path=str(self.path), why=str(error))
            return None
        return found

    def _write(self, found: RiskData) -> bool:
        """Whether it was written; where not, what is there stays, and grows old."""
        try:
            risk_data.write(self.path, found)
            self._good(found)
        except (RiskDataInvalid, OSError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _LOG.error("risk data not written", path=str(self.path), why=self._trouble)
            return False
        self._trouble = ""
        return True

    def _good(self, found: RiskData) -> None:
        """The file is good: what the control block is to say of it. Microseconds are exact in a float until 2255."""
        self._generation = float(self.path.stat().st_mtime_ns // 1000)
        self.as_of_s = found.as_of_ns / 1e9
        self.regimes = Counter(map(Regime, found.regimes.tolist()))
