"""Requests and decisions for the journal's tests."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from tickgate_server.journal.layout import HEADER_BYTES, RECORD_BYTES
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.loading import LoadedModel
from tickgate_server.records import TICK, Decision, Request
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.ticks.market import QUOTE, TRADE

VECTOR = np.arange(10, dtype=np.float32) / 7


def tick(sequence: int = 1, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "budget_ns": 50_000_000,
        "input": TICK,
        "symbol": "BTCUSDT",
        "exchange_ts_ns": 1_700_000_000_000_000_000,
        "sequence": sequence,
        "kind": TRADE | QUOTE,
        "price": 101.5,
        "size": 2.0,
        "bid": 101.0,
        "ask": 102.0,
        "bid_size": 3.0,
        "ask_size": 4.0,
    }
    return Request(**{**values, **changes})


def approved(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "action": Action.BUY,
        "reason": Reason.APPROVED,
        "size": 1.5,
        "limit_price": 102.3,
        "valid_for_us": 5_000_000,
        "target": 1.5,
        "scored": True,
        "value": 0.3,
        "confidence": 0.65,
        "judged": True,
        "check_values": [1.0, 0.65, 1.0, 0.0, 1.5, 152.0, 1.5, 152.0, 31.0, *[0.0] * 8, 152.0, 152.0, 0.0, 0.0],
        "trades_in_window": 100,
        "ready": True,
        "features_ts_ns": 1_700_000_000_000_000_000,
        "waiting_ns": 2000,
        "features_ns": 900,
        "inference_ns": 8000,
        "risk_ns": 3000,
        "total_ns": 15_000,
        "budget_ns": 50_000_000,
    }
    return Decision(**{**values, **changes})


def model(name: str = "m", version: int = 1) -> LoadedModel:
    """As much of a model as the journal looks at; hashed by identity, as the real one."""
    manifest = SimpleNamespace(model_sha256="ab" * 32)
    return cast(
        "LoadedModel",
        _Model(name=name, version=version, schema_id="micro10/0123456789abcdef", manifest=manifest, not_compiled=""),
    )


class _Model(SimpleNamespace):
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def append(writer: JournalWriter, count: int = 1) -> None:
    """Decisions whose tick sequence is their own."""
    for _ in range(count):
        writer.append_decision(tick(writer.next_sequence), approved(), applied=True, vector=VECTOR)


def sequences(reader: JournalReader) -> list[int]:
    found: list[int] = []
    while (rows := reader.poll()).size:
        found += rows["sequence"].tolist()
    return found


def slot_at(slot: int, byte: int = 0) -> int:
    return HEADER_BYTES + slot * RECORD_BYTES + byte


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
