"""What references mean to the fast lane: found by their bytes, and pointed elsewhere by storing a number."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tickgate_server.arrays import ArrayTable
from tickgate_server.rpc.lane.facts import REFERENCES
from tickgate_server.ticks.symbol_index import symbol_hash

REFERENCE_BYTES = 76
_ROWS = 256


class Meant(NamedTuple):
    """Where a reference leads.

    Attributes:
        model: Address of its model's arrays; 0: it has no lane.
        canary: Likewise, for the share of the symbols below.
        share_percent: 0: there is no canary.
    """

    model: int = 0
    canary: int = 0
    share_percent: float = 0.0


_NOWHERE = Meant()


class References:
    """An open-addressed table of references, at most half full, in the arrays of a lane.

    A reference keeps its row when it is pointed elsewhere. Where the rows are used up, those that lead nowhere are let
    go, and the table is made larger if need be.

    Args:
        lane: Whose arrays these are.
    """

    def __init__(self, lane: ArrayTable) -> None:
        self._lane = lane
        self._rows: dict[str, int] = {}
        self._meant: dict[str, Meant] = {}
        self._make(_ROWS)

    def _make(self, capacity: int) -> None:
        self._slots = np.full(4 * capacity, -1, np.int64)
        self._names = np.zeros((capacity, REFERENCE_BYTES), np.uint8)
        self._lengths = np.zeros(capacity, np.int64)
        self._targets = np.zeros((capacity, 2), np.int64)
        self._shares = np.zeros(capacity)
        self._rows.clear()
        self._meant.clear()
        arrays = (self._slots, self._names, self._lengths, self._targets, self._shares)
        for number, array in enumerate(arrays, REFERENCES):
            self._lane.put(number, array)

    def point(self, wanted: Mapping[str, Meant]) -> None:
        """Have references lead there, and all others nowhere."""
        if len(self._rows.keys() | wanted.keys()) > len(self._lengths):
            self._make(max(_ROWS, 1 << (2 * len(wanted) - 1).bit_length()))
        for reference in [one for one in self._meant if one not in wanted]:
            self._store(self._rows[reference], _NOWHERE)
            del self._meant[reference]
        for reference, meant in wanted.items():
            if self._meant.get(reference) != meant:
                row = self._rows.get(reference)
                self._store(self._add(reference) if row is None else row, meant)
                self._meant[reference] = meant

    def _store(self, row: int, meant: Meant) -> None:
        self._targets[row] = meant.model, meant.canary
        self._shares[row] = meant.share_percent

    def _add(self, reference: str) -> int:
        row = self._rows[reference] = len(self._rows)
        data = reference.encode()
        self._names[row, : len(data)] = np.frombuffer(data, np.uint8)
        self._lengths[row] = len(data)
        mask = self._slots.size - 1
        slot = int(symbol_hash(data, 0, len(data))) & mask
        while self._slots[slot] >= 0:
            slot = (slot + 1) & mask
        self._slots[slot] = row
        return row
