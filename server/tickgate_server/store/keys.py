"""The names of what is in Redis. The braces around a symbol are a hash tag: all that is one symbol's is in one slot.

| key | type | content |
|---|---|---|
| `features:{schema}:{symbol}:{sequence}` | string | a vector, see `states.codec`; expires |
| `features:{schema}:{symbol}:latest` | string | the newest one; expires likewise |
| `features:{schema}:{symbol}:history` | sorted set | sequences of the newest, 20 digits each, by venue time in us |
| `state:{symbol}` | string | the symbol's kernel state; expires |
| `states` | sorted set | symbols that have one, by wall clock of its writing in s |
| `fundamentals:{symbol}` | string | all slow values of the symbol, see `store.fundamentals` |
| `fundamentals` | string | which symbols have some, and what generation they are of |

In these, `{symbol}` stands with its braces in the key, `{schema}` and `{sequence}` stand for their text. A symbol with
a closing brace in it would choose its slot by what is before the brace, so `}` and `%` are written as `%7D` and `%25`.
"""


class Keys:
    """Every key, behind a prefix.

    Args:
        prefix: Of `StoreSettings`.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def vector(self, schema_id: str, symbol: str, sequence: int) -> str:
        """Of one trade's vector."""
        return f"{self._prefix}features:{schema_id}:{{{_tag(symbol)}}}:{sequence}"

    def latest(self, schema_id: str, symbol: str) -> str:
        """Of a symbol's newest vector."""
        return f"{self._prefix}features:{schema_id}:{{{_tag(symbol)}}}:latest"

    def history(self, schema_id: str, symbol: str) -> str:
        """Of the sequences of a symbol's newest vectors."""
        return f"{self._prefix}features:{schema_id}:{{{_tag(symbol)}}}:history"

    def state(self, symbol: str) -> str:
        """Of a symbol's state."""
        return f"{self._prefix}state:{{{_tag(symbol)}}}"

    def states(self) -> str:
        """Of the symbols that have a state."""
        return f"{self._prefix}states"

    def fundamentals(self, symbol: str) -> str:
        """Of a symbol's fundamentals."""
        return f"{self._prefix}fundamentals:{{{_tag(symbol)}}}"

    def all_fundamentals(self) -> str:
        """Of the list of symbols that have fundamentals."""
        return f"{self._prefix}fundamentals"


def history_member(sequence: int) -> str:
    """A sequence in a history: its digits sort as it does."""
    return f"{sequence:020d}"


def _tag(symbol: str) -> str:
    return symbol.replace("%", "%25").replace("}", "%7D")
