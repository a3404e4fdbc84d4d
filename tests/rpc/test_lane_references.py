"""What references mean to the fast lane, beside a dictionary that says the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tickgate_server.arrays import ArrayTable, byte_rows, floats, integer_rows, integers
from tickgate_server.rpc.lane.facts import LANE_ARRAYS, REFERENCES
from tickgate_server.rpc.lane.references import Meant, References
from tickgate_server.ticks.symbol_index import find_row

names = st.text("ab1:@._-", max_size=6)
meanings = st.builds(Meant, st.integers(0, 9), st.integers(0, 9), st.sampled_from([0.0, 0.5, 100.0]))


def found_by_kernels(lane: ArrayTable, reference: str) -> Meant:
    """As the lane's kernel reads the arrays."""
    table, data = lane.table, reference.encode()
    arrays = integers(table, REFERENCES), byte_rows(table, REFERENCES + 1), integers(table, REFERENCES + 2)
    row = find_row(data, 0, len(data), *arrays)
    if row < 0:
        return Meant()
    model, canary = integer_rows(table, REFERENCES + 3)[row].tolist()
    return Meant(model, canary, float(floats(table, REFERENCES + 4)[row]))


@settings(max_examples=50)
@given(st.lists(st.dictionaries(names, meanings, max_size=12), min_size=1, max_size=8))
def test_each_reference_leads_where_the_last_word_says(turns: list[dict[str, Meant]]) -> None:
    lane = ArrayTable(LANE_ARRAYS)
    references = References(lane)
    seen: set[str] = set()
    for wanted in turns:
        references.point(wanted)
        seen |= wanted.keys()
        assert {name: found_by_kernels(lane, name) for name in seen} == {
            name: wanted.get(name, Meant()) for name in seen
        }


def test_more_references_than_rows_make_the_table_larger_and_those_that_lead_nowhere_are_let_go() -> None:
    lane = ArrayTable(LANE_ARRAYS)
    references = References(lane)
    for turn in range(40):  # 4,000 names in all, never more than 100 at a time
        wanted = {f"model-{turn}:{version}": Meant(version + 1) for version in range(100)}
        references.point(wanted)
        assert all(found_by_kernels(lane, name) == meant for name, meant in wanted.items())
        assert found_by_kernels(lane, f"model-{turn - 1}:5") == Meant()
    assert references._lengths.size == 256
    many = {f"model:{version}": Meant(version + 1) for version in range(3_000)}
    references.point(many)
    assert all(found_by_kernels(lane, name) == meant for name, meant in many.items())
