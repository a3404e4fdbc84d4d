import pytest

from tickgate.symbol_hash import worker_of
from tickgate_server.errors import SymbolElsewhere
from tickgate_server.ticks.instruments import Instrument, Universe
from tickgate_server.ticks.symbols import FULL, LOT, MINIMUM_SIZE, MULTIPLIER, TICK_SIZE, UNKNOWN, SymbolTable

ES = Instrument(symbol="ES", tick_size=0.25, lot=1.0, minimum_size=2.0, multiplier=50.0)
NQ = Instrument(symbol="NQ", tick_size=0.5)


def table(*instruments: Instrument, closed: bool = False, capacity: int = 4) -> SymbolTable:
    return SymbolTable(Universe({one.symbol: one for one in instruments}, closed), capacity)


def test_instruments_of_the_file_have_rows_in_its_order() -> None:
    known = table(ES, NQ)
    assert [known.row("ES"), known.row("NQ"), known.row("CL")] == [0, 1, UNKNOWN]


def test_a_row_holds_the_instruments_numbers() -> None:
    known = table(NQ, ES)
    row = known.row("ES")
    held = known.contracts[row]
    assert held[[TICK_SIZE, LOT, MINIMUM_SIZE, MULTIPLIER]].tolist() == [0.25, 1.0, 2.0, 50.0]


def test_a_closed_universe_offers_no_row() -> None:
    known = table(ES, closed=True)
    assert known.offer("NQ") == UNKNOWN
    assert len(known) == 1


def test_an_open_universe_offers_a_row_with_the_defaults() -> None:
    known = table(ES)
    row = known.offer("NEW")
    known.keep()
    assert known.row("NEW") == row == 1
    assert known.contracts[row, [TICK_SIZE, LOT, MINIMUM_SIZE, MULTIPLIER]].tolist() == [1e-8, 1e-8, 0.0, 1.0]


def test_a_row_that_was_offered_and_not_kept_goes_to_the_next_symbol() -> None:
    known = table(ES)
    assert known.offer("REJECTED") == 1
    assert (known.row("REJECTED"), len(known)) == (UNKNOWN, 1)
    assert known.offer("NEXT") == 1
    known.keep()
    assert (known.row("REJECTED"), known.row("NEXT")) == (UNKNOWN, 1)


def test_a_full_table_refuses_new_symbols_and_serves_those_it_has() -> None:
    known = table(ES, capacity=2)
    known.offer("SECOND")
    known.keep()
    assert known.offer("THIRD") == FULL
    assert [known.row("ES"), known.row("SECOND"), known.row("THIRD")] == [0, 1, UNKNOWN]


def test_more_instruments_than_capacity_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 instruments, and capacity for 1 symbols"):
        table(ES, NQ, capacity=1)


def test_nothing_is_kept_that_was_not_offered() -> None:
    known = table(ES)
    known.offer("ONCE")
    known.keep()
    with pytest.raises(ValueError, match="no symbol was offered"):
        known.keep()


def test_one_of_several_workers_has_rows_for_its_own_symbols_only() -> None:
    instruments = {name: Instrument(symbol=name) for name in ("ES", "NQ", "CL", "GC", "SI", "HG")}
    tables = [SymbolTable(Universe(instruments, closed=True), 6, worker, 3) for worker in range(3)]
    for name in instruments:
        owners = [worker for worker, known in enumerate(tables) if known.row(name) != UNKNOWN]
        assert owners == [worker_of(name, 3)]
    assert sum(len(known) for known in tables) == len(instruments)


def test_a_symbol_of_another_worker_is_refused_and_names_it() -> None:
    owner = worker_of("NEW", 3)
    for worker in range(3):
        known = SymbolTable(Universe({}, closed=False), 4, worker, 3)
        if worker == owner:
            assert known.offer("NEW") == 0
        else:
            with pytest.raises(SymbolElsewhere, match=f"expected worker {owner} of 3, reached worker {worker}"):
                known.offer("NEW")
            assert len(known) == 0
