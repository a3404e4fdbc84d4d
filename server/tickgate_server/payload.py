"""Hash of what a request asks, as the fast lane computes it and the journal's records give it back."""

import numpy as np

from tickgate_server.records import FEATURES, TICK, Request
from tickgate_server.risk.request_ids import payload_hash
from tickgate_server.ticks.market import QUOTE, TRADE


def payload_of(request: Request) -> int:
    """Of a request as decoded; what its input and kind do not have does not count."""
    of_caller = request.input == FEATURES
    given = request.input
    kind = request.kind if given == TICK else 0
    numbers = np.zeros(6)
    if kind & TRADE:
        numbers[:2] = request.price, request.size
    if kind & QUOTE:
        numbers[2:] = request.bid, request.ask, request.bid_size, request.ask_size
    timed = given in {TICK, FEATURES}
    name, asked = request.symbol.encode(), request.model.encode()
    values = np.array(request.values if of_caller else (), np.float32)
    return int(
        payload_hash(
            given,
            kind,
            request.exchange_ts_ns if timed else 0,
            request.sequence if given == TICK else 0,
            numbers.view(np.uint64),
            request.reference_price if of_caller else 0.0,
            values,
            name + asked,
            0,
            len(name),
            len(name),
            len(asked),
        )
    )
