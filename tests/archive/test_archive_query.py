"""What `tickgate query` answers: the examples of its page, the log's other views, and nothing but questions."""

import re
import runpy
from pathlib import Path

import pytest
from bench import archive as bench
from tests.archive.archiving import DAY_NS, append, archive, rows, unsent, writing

from tickgate_server.archive import compaction, store
from tickgate_server.archive.errors import ArchiveMissing, QueryFailed, QueryRefused
from tickgate_server.archive.query import DecisionLog, journals_by_worker
from tickgate_server.journal.errors import JournalMissing
from tickgate_server.journal.layout import ControlKind

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = re.findall(r"```sql\n(.*?)```", (DOCS / "query.md").read_text(encoding="utf-8"), re.DOTALL)
IN_AUGUST_NS = 1_723_161_600_000_000_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> DecisionLog:
    """Half in Parquet, half in the journal."""
    folder = tmp_path_factory.mktemp("queried")
    with writing(folder / "journal") as writer:
        writer.append_control(ControlKind.LIMITS, {"max_var": 25_000.0, "max_gross_exposure": float("inf")})
        for half in range(2):
            found = append(writer, 40, clock_ns=IN_AUGUST_NS + half * DAY_NS)
            append(writer, 3, clock_ns=IN_AUGUST_NS + half * DAY_NS, action=1, reason=50, size=0.0)
            unsent(writer, found[-1:])
            fill = {"fill_id": f"f{half}", "symbol": "S1", "side": 1, "size": 1.5, "price": 102.4}
            fill |= {"order_id": found[1], "fee": -0.5, "exchange_ts_ns": 0}
            writer.append_control(ControlKind.FILL, fill, clock_ns=IN_AUGUST_NS + half * DAY_NS)
            writer.append_control(ControlKind.ORDER, {"order_id": found[1], "state": 4})
            writer.append_control(ControlKind.ORDER, {"order_id": 0, "symbol": "S2", "signed_size": -2.0})
            writer.append_control(ControlKind.TRADING_STATE, {"state": 3, "reason": "drill", "who": "a test"})
            if not half:
                archive(folder / "log", folder / "journal")
    return DecisionLog(folder / "log", {"": folder / "journal"})


@pytest.mark.parametrize("sql", EXAMPLES, ids=[" ".join(example.split()[:6]) for example in EXAMPLES])
def test_each_example_of_the_page_runs_and_finds_something(log: DecisionLog, sql: str) -> None:
    found = log.table(sql)
    assert found.num_rows or "FROM ticks" in sql


def test_the_page_has_the_columns_that_there_are() -> None:
    page = (DOCS / "query.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "query_columns.py"))["generated"](page) == page


def test_the_views_name_what_the_journal_has_as_numbers(log: DecisionLog) -> None:
    assert rows(log, "SELECT fill_id, side, price, fee, exchange_ts_ns FROM fills ORDER BY time") == [
        ("f0", "BUY", 102.4, -0.5, None),
        ("f1", "BUY", 102.4, -0.5, None),
    ]
    orders = rows(log, "SELECT order_id, sequence, symbol, state, signed_size FROM orders ORDER BY time, sequence")
    told, foreign, *_ = orders
    assert told[2:] == (None, "CANCELLED", None)
    assert foreign == (foreign[1], foreign[1], "S2", "ACCEPTED", -2.0)
    assert set(rows(log, "SELECT state, reason, who FROM trading_states")) == {("HALTED", "drill", "a test")}
    assert rows(log, "SELECT payload->>'max_gross_exposure' FROM events WHERE control = 'LIMITS'") == [("Infinity",)]


def test_half_from_files_and_half_from_the_journal_are_all_decisions_once(log: DecisionLog) -> None:
    counted = "SELECT count(*), count(DISTINCT sequence), count(*) FILTER (status <> 'OK') FROM decisions"
    assert rows(log, counted) == [(86, 86, 2)]
    assert rows(log, "SELECT DISTINCT date::VARCHAR, model FROM decisions ORDER BY ALL") == [
        (date, model) for date in ("2024-08-09", "2024-08-10") for model in ("m", "n")
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY decisions TO 'x.csv'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SET memory_limit = '99GB'",
        "CREATE TABLE t AS SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_what_is_no_single_select_is_refused(log: DecisionLog, sql: str) -> None:
    with pytest.raises(QueryRefused, match="expected one SELECT"):
        log.table(sql)


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT * FROM nowhere", "SELECT * FROM '/etc/passwd'", "FROM glob('/*')"])
def test_what_cannot_be_answered_says_why(log: DecisionLog, sql: str) -> None:
    with pytest.raises(QueryFailed, match="Error"):
        log.table(sql)


def test_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing):
        DecisionLog(tmp_path / "nowhere", {}).table("SELECT 1")
    with pytest.raises(JournalMissing):
        journals_by_worker([tmp_path / "a", tmp_path / "b"])


def test_before_anything_is_archived_the_journal_alone_answers(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        append(writer, 5)
        assert rows(DecisionLog(tmp_path / "log", {"": tmp_path / "journal"}), "SELECT count(*) FROM decisions") == [
            (5,)
        ]
        assert rows(DecisionLog(None, {"": tmp_path / "journal"}), "SELECT max(time) FROM decisions")[0][0] is not None


def test_the_benchs_decisions_take_few_bytes_and_a_symbols_hour_lies_in_few_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (store, compaction):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 4096)
    total = 40_000
    bench.fill(tmp_path, total, commit_rows=10_000)
    log = DecisionLog(tmp_path, {})
    (file,) = (tmp_path / "decisions").rglob("*.parquet")
    assert file.stat().st_size / total < 350
    holding = "count(*) FILTER (stats_min_value <= 'SYM07USDT' AND stats_max_value >= 'SYM07USDT')"
    groups = rows(log, f"SELECT count(*), {holding} FROM parquet_metadata('{file}') WHERE path_in_schema = 'symbol'")
    assert groups in ([(10, 1)], [(10, 2)])
    assert rows(log, "SELECT count(*), count(DISTINCT request_id) FROM decisions") == [(total, total)]
    (hour,) = rows(log, f"SELECT count(*), min(symbol), max(symbol) FROM decisions WHERE {bench.HOUR}")
    assert 10 < hour[0] < 50
    assert hour[1:] == ("SYM07USDT", "SYM07USDT")
