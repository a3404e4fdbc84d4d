"""Rows on their way into a time-series database: as lines, each once, whatever fails between."""

import time
from pathlib import Path
from threading import Event

import httpx
import pyarrow as pa
import pytest
from tests.archive.archiving import NOON_NS, append, commanded, decisions_in, unsent, writing
from tests.journal.journal_samples import approved, tick
from tests.support.questdb import questdb

from tickgate_server.archive import sink as forwarding
from tickgate_server.archive.questdb import QuestDb, lines
from tickgate_server.archive.schema import DECISIONS, EVENTS, TableName, schema_of
from tickgate_server.archive.sink import Forwarder, SinkRefused, SinkUnreachable


class Kept:
    """A sink in memory, which keeps each record once, and is away when told so."""

    name = "kept"

    def __init__(self, away: list[bool] | None = None) -> None:
        self.records: dict[tuple[object, ...], dict[str, object]] = {}
        self.writes = 0
        self._away = away or []

    def prepare(self) -> None:
        pass

    def write(self, table: TableName, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            self.records[table, row["worker"], row["journal_ns"], row["sequence"]] = row
        self.writes += 1
        if self._away and self._away.pop(0):  # it has them, and nobody is told
            raise SinkUnreachable(self.name, "the connection broke")

    def close(self) -> None:
        pass


def forward(sink: forwarding.Sink, journal: Path) -> Forwarder:
    end = Event()
    end.set()
    forwarder = Forwarder(sink, {"": journal}, journal.parent)
    forwarder.run(end)
    return forwarder


def test_what_was_sent_and_not_acknowledged_is_sent_again_and_the_rest_follows(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        append(writer, 100)
        kept = Kept(away=[False, True])
        with pytest.raises(SinkUnreachable):
            forward(kept, tmp_path / "journal")
        append(writer, 50, clock_ns=NOON_NS + 1)
        forward(kept, tmp_path / "journal")
        writes = kept.writes
        forward(kept, tmp_path / "journal")
        assert kept.writes == writes
    sequences = sorted(int(str(key[3])) for key in kept.records if key[0] == DECISIONS)
    assert sequences == [entry.sequence for entry in decisions_in(tmp_path / "journal")]


def test_a_sink_that_is_away_is_tried_again_until_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "FIRST_PAUSE_S", 0.001)
    with writing(tmp_path / "journal") as writer:
        append(writer, 10)
    end = Event()

    class Back(Kept):
        def write(self, table: TableName, rows: pa.Table) -> None:
            super().write(table, rows)
            if table == EVENTS:
                end.set()

    back = Back(away=[True, True, True])
    Forwarder(back, {"": tmp_path / "journal"}, tmp_path).run(end)
    assert sum(key[0] == DECISIONS for key in back.records) == 10


def table_of(table: TableName, **values: object) -> pa.Table:
    """One row; what is not given is NULL."""
    schema = schema_of(table)
    given = {"worker": "", "journal_ns": 5, "sequence": 7, "time": 1_000_000_007, **values}
    arrays = [pa.array([given.get(field.name)], field.type) for field in schema]
    found = pa.Table.from_arrays(arrays, schema=schema)
    return found.append_column("model", pa.array([given.get("model")], pa.string()))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "tickgate_events,worker=one journal_ns=5i,sequence=7i 1000000007\n"),
        (
            {"worker": "worker-1", "control": "FILL", "restated": False, "payload": '{"a": "b\\"}\n'},
            (
                "tickgate_events,worker=worker-1,control=FILL"
                ' journal_ns=5i,sequence=7i,restated=f,payload="{\\"a\\": \\"b\\\\\\"} " 1000000007\n'
            ),
        ),
    ],
)
def test_events_as_lines_by_hand(values: dict[str, object], line: str) -> None:
    assert lines(EVENTS, table_of(EVENTS, **values)).to_pylist() == [line]


def test_decisions_as_lines_leave_out_what_is_null_or_not_finite_and_escape_what_is_special() -> None:
    values = {"model": "m 1", "symbol": "a,b=c\\d", "price": 1e-5, "bid": float("nan"), "applied": True, "ask": None}
    (line,) = lines(DECISIONS, table_of(DECISIONS, tick_sequence=2**64 - 1, **values)).to_pylist()
    assert line == (
        r"tickgate_decisions,model=m\ 1,worker=one,symbol=a\,b\=c\\d"
        " journal_ns=5i,sequence=7i,applied=t,price=0.00001 1000000007\n"
    )


def test_an_answer_that_is_an_error_says_whether_it_may_pass(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        append(writer, 1)
    for status, error in ((400, SinkRefused), (503, SinkUnreachable), (429, SinkUnreachable)):
        database = QuestDb("http://database")
        database._client = httpx.Client(
            base_url="http://database",
            transport=httpx.MockTransport(lambda _, status=status: httpx.Response(status, text="why not")),  # type: ignore[misc]
        )
        with pytest.raises(error, match="why not"):
            forward(database, tmp_path / "journal")


def test_the_command_wants_a_database_that_it_knows(tmp_path: Path) -> None:
    found = commanded("archive", "forward", "--to", "mystery:http://x", "--journal", str(tmp_path))
    assert found.exit_code == 1
    assert "expected questdb:http://host:port" in found.output


def test_a_real_questdb_has_each_record_once_though_all_were_sent_twice(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        sequences = append(writer, 3000)
        unsent(writer, sequences[:1])
        writer.append_decision(tick(2**64 - 1, symbol='a b,c="\\'), approved(), status=3, stage=0, request_id='"\\')
    with questdb(tmp_path / "database") as url:
        for _ in range(2):
            told = commanded("archive", "forward", "--to", f"questdb:{url}", "--journal", str(tmp_path / "journal"))
            assert told.exit_code == 0, told.output
            (tmp_path / "journal" / "forwarded-questdb.json").unlink()  # as if it had died before it could be written
        give_up = time.monotonic() + 30.0
        while True:  # its writer applies what it acknowledged a moment later
            found = _ask(url, "SELECT count(), count_distinct(sequence), max(price) FROM tickgate_decisions")
            if found[0][0] >= 3001:
                break
            assert time.monotonic() < give_up, found
            time.sleep(0.05)  # a test that spins would take the core that it is to apply on
        assert found == [[3001, 3001, 101.5]]
        odd = _ask(url, "SELECT symbol, request_id, status FROM tickgate_decisions WHERE status = 'INVALID_ARGUMENT'")
        assert odd == [['a b,c="\\', '"\\', "INVALID_ARGUMENT"]]
        assert _ask(url, "SELECT count() FROM tickgate_events WHERE control = 'UNSENT'") == [[1]]


def _ask(url: str, sql: str) -> list[list[object]]:
    found = httpx.get(f"{url}/exec", params={"query": sql}, trust_env=False).json()
    assert "dataset" in found, found
    return list(found["dataset"])
