"""One line of a raw capture of Binance's public streams: `<local receive time, ns> <raw JSON of one message>`.

`@trade` and `@bookTicker` are told apart and read, every other message is passed over; what the fields mean stands in
`data.binance`.
"""

import msgspec

MARKET = "MARKET"
"""`X` of a trade that two orders of the market made; spot trades have none, and are."""
_SHOWN_CHARACTERS = 120
_STAMP_DIGITS = 19  # of int64 nanoseconds


class _Envelope(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class Trade(msgspec.Struct):
    """A message of a `@trade` stream."""

    symbol: str = msgspec.field(name="s")
    trade_id: int = msgspec.field(name="t")
    price: float = msgspec.field(name="p")
    size: float = msgspec.field(name="q")
    time_ms: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")
    execution: str = msgspec.field(name="X", default=MARKET)  # spot trades have none


class BookTicker(msgspec.Struct):
    """A message of a `@bookTicker` stream."""

    symbol: str = msgspec.field(name="s")
    bid: float = msgspec.field(name="b")
    bid_size: float = msgspec.field(name="B")
    ask: float = msgspec.field(name="a")
    ask_size: float = msgspec.field(name="A")
    time_ms: int | None = msgspec.field(name="T", default=None)  # futures only


_envelope = msgspec.json.Decoder(_Envelope)
# strict=False: Binance sends numbers as strings.
_trade = msgspec.json.Decoder(Trade, strict=False)
_book_ticker = msgspec.json.Decoder(BookTicker, strict=False)


class LineInvalid(Exception):
    """A line is not what the feed sends; the reader of the file adds where it stands.

    Attributes:
        found: What stands there, shortened.
        expected: What should.
    """

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}; expected {expected}")
        self.found = found
        self.expected = expected


def read_line(line: bytes) -> tuple[int, Trade | BookTicker | None]:
    """The receive time in nanoseconds, and the message; None where it is of another stream.

    Raises:
        LineInvalid: It has no receive time, is not JSON, or a trade or book ticker lacks a field.
    """
    received, space, payload = line.rstrip(b"\r\n").partition(b" ")
    if not (space and received.isdigit() and len(received) <= _STAMP_DIGITS):
        raise LineInvalid(_shown(line), "'<receive time, ns> <JSON>'")
    try:
        envelope = _envelope.decode(payload)
        if envelope.stream is None:
            return int(received), None  # a depth snapshot
        if envelope.stream.endswith("@trade"):
            return int(received), _trade.decode(envelope.data)
        if envelope.stream.endswith("@bookTicker"):
            return int(received), _book_ticker.decode(envelope.data)
    except msgspec.MsgspecError as error:
        raise LineInvalid(_shown(payload), f"a message of Binance's streams ({error})") from error
    return int(received), None


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip()
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
