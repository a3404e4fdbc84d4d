"""Requests for the tests, and answers without what differs from run to run."""

from tickgate.v1 import market_pb2
from tickgate.v1 import signal_pb2 as pb

START_NS = 1_723_161_600_000_000_000
SECOND_NS = 1_000_000_000


def tick(
    symbol: str,
    at_ns: int,
    *,
    sequence: int = 0,
    trade: tuple[float, float] | None = None,
    quote: tuple[float, float, float, float] | None = None,
    **request: str | int,
) -> pb.PredictRequest:
    """A request with a tick; `trade` is price and size, `quote` bid, ask, bid size, ask size."""
    message = market_pb2.Tick(symbol=symbol, exchange_ts_ns=at_ns, sequence=sequence)
    if trade is not None:
        message.trade.price, message.trade.size = trade
    if quote is not None:
        message.quote.bid, message.quote.ask, message.quote.bid_size, message.quote.ask_size = quote
    return pb.PredictRequest(tick=message, **request)


def zigzag(
    symbol: str, trades: int, *, start_ns: int = START_NS, step_ns: int = SECOND_NS, price: float = 100.0
) -> list[pb.PredictRequest]:
    """Numbered trades a step apart, every second one 0.1 % higher: an even number of them ends on a rise."""
    return [
        tick(
            symbol,
            start_ns + number * step_ns,
            sequence=number + 1,
            trade=(price * (1.001 if number % 2 else 1.0), 1.0 + number % 3),
        )
        for number in range(trades)
    ]


def features(
    symbol: str, values: list[float], *, at_ns: int = START_NS, price: float = 100.0, schema_id: str = ""
) -> pb.PredictRequest:
    """A request with a vector of the caller's."""
    return pb.PredictRequest(
        features=pb.FeatureVector(
            symbol=symbol, values=values, exchange_ts_ns=at_ns, reference_price=price, schema_id=schema_id
        )
    )


def untimed(response: pb.PredictResponse) -> pb.PredictResponse:
    """A copy without `timing`, the only part that two equal answers may differ in."""
    copy = pb.PredictResponse()
    copy.CopyFrom(response)
    copy.ClearField("timing")
    return copy
