"""Which symbols a canary answers for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate.symbol_hash import fnv1a_64
from tickgate_server.models.canary import place
from tickgate_server.ticks.instruments import SYMBOL_BYTES

_MASK = (1 << 64) - 1


def slow_place(symbol: str) -> float:
    """As the module's docstring says it."""
    value = fnv1a_64(b"canary:" + symbol.encode())
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value ^= value >> 33
        value = value * factor & _MASK
    value ^= value >> 33
    return (value >> 11) / (1 << 53)


@given(st.text(max_size=SYMBOL_BYTES // 4), st.binary(max_size=3), st.binary(max_size=3))
def test_the_place_of_a_symbol_is_the_published_one_wherever_it_stands(
    symbol: str, before: bytes, behind: bytes
) -> None:
    data = symbol.encode()
    found = place(before + data + behind, len(before), len(data))
    assert found == slow_place(symbol)
    assert 0.0 <= found < 1.0


def test_places_that_other_programs_can_check_theirs_by() -> None:
    found = [place(name, 0, len(name)) for name in (b"AAPL", b"BTCUSDT", b"ES")]
    assert found == [0.1877640353086868, 0.3817429726377224, 0.12834805726508225]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_takes_that_share_of_many_symbols(share: float) -> None:
    count = 20_000
    names = [f"SYM{number}".encode() for number in range(count)]
    taken = sum(place(name, 0, len(name)) < share for name in names)
    assert abs(taken - count * share) < 5.0 * (count * share * (1.0 - share)) ** 0.5  # five standard deviations
