"""`tickgate parity`: what was served beside training's features of the same ticks."""

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.support.messages import SECOND_NS, START_NS, features, tick
from tests.support.packages import publish_forest, publish_logistic
from tests.support.processes import run, served
from tests.support.real_data import SPOT_ETH, capture_path

from tickgate.v1 import signal_pb2 as pb
from tickgate_client.ticks import write_csv
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.schema import feature_set
from tickgate_server.features.store import FeatureStore
from tickgate_server.journal import layout
from tickgate_server.journal.layout import ControlKind, TickOutcome
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import load_repository
from tickgate_server.rpc.answers import Answers
from tickgate_training.parity import file_ticks
from tickgate_training.parity.commands import parity
from tickgate_training.parity.comparing import Comparison
from tickgate_training.parity.file_ticks import OfSymbol
from tickgate_training.parity.served import Applied, Began, Decided, ServedJournal

GAP_NS = 300 * SECOND_NS


def trades(seed: int, count: int, start_ns: int = START_NS, *, numbered: bool = True) -> list[pb.PredictRequest]:
    """Requests of two symbols, trades with quotes and quotes alone; some are rejected, several share a stamp."""
    rng = np.random.default_rng(seed)
    stamp_ns, requests = start_ns, []
    for number in range(1, count + 1):
        stamp_ns += int(rng.choice([0, 10**8, 10**9]))
        kind = int(rng.choice([1, 2, 3], p=[0.5, 0.2, 0.3]))
        bid = 99.98 + 0.01 * int(rng.integers(0, 3))
        ask = bid + (-0.01 if rng.random() < 0.03 else 0.01)
        requests.append(
            tick(
                "AB"[int(rng.integers(2))],
                stamp_ns - (30 * SECOND_NS if rng.random() < 0.03 else 0),
                sequence=number if numbered else 0,
                trade=(100.0 + 0.01 * int(rng.integers(0, 5)), float(rng.choice([0.0, 1.0, 2.5])))
                if kind & 1
                else None,
                quote=(bid, ask, 1.0, 4.0) if kind & 2 else None,
            )
        )
    return requests


@contextmanager
def serving(models: Path, journal: JournalWriter) -> Iterator[Answers]:
    """A server as the journal sees it: its start, then what it decides."""
    journal.append_control(ControlKind.SETTINGS, {"instruments": []})
    engine = Engine(EngineSettings(capacity=8, replay=True), load_repository(models), journal=journal)
    answers = Answers(engine)
    yield answers
    answers.close()
    engine.close()


def send(answers: Answers, requests: list[pb.PredictRequest]) -> None:
    for request in requests:
        answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)


def record(folder: Path, models: Path, *lives: list[pb.PredictRequest]) -> Path:
    """The journal of servers one after the other."""
    with JournalWriter(folder, segment_records=512) as writer:
        for requests in lives:
            with serving(models, writer) as answers:
                send(answers, requests)
    return folder


def compare(journal: Path, data: object, *arguments: object) -> tuple[int, dict[str, Any]]:
    command = ["--journal", str(journal), "--data", str(data), *map(str, arguments), "--json"]
    result = CliRunner().invoke(parity, command)
    assert result.exit_code in {0, 1}, result.output
    return result.exit_code, json.loads(result.output)


def without(found: dict[str, Any]) -> dict[str, int]:
    return {why: one["decisions"] for why, one in found["without"].items()}


def repository(folder: Path, name: str) -> Path:
    """A forest, which the fast lane serves, of `micro10`; a linear function of `micro32`."""
    publish = publish_forest if name == "micro10" else publish_logistic
    publish(folder, name="m", features=feature_set(name, GAP_NS), latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("models"), "micro32")


@pytest.fixture(scope="module")
def requests() -> list[pb.PredictRequest]:
    return trades(1, 900)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, requests: list[pb.PredictRequest]) -> Path:
    path = tmp_path_factory.mktemp("data") / "ticks.csv"
    write_csv(path, (request.tick for request in requests))
    return path


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory, models: Path, requests: list[pb.PredictRequest]) -> Path:
    """Every tick of the file, then a look at each symbol's latest, and a vector of the caller's."""
    asked = [pb.PredictRequest(symbol="A"), features("A", [0.0] * 3), pb.PredictRequest(symbol="C")]
    return record(tmp_path_factory.mktemp("journal"), models, [*requests, *asked])


def altered(data: Path, place: Path, line: int, column: int, cell: str) -> Path:
    lines = data.read_text().splitlines()
    cells = lines[line - 1].split(",")
    cells[column] = cell
    lines[line - 1] = ",".join(cells)
    place.write_text("\n".join(lines))
    return place


def line_of(data: Path, symbol: str, after: int) -> int:
    """A line of the file beyond `after` with a trade of a symbol, and no quote."""
    for number, row in enumerate(data.read_text().splitlines(), start=1):
        cells = row.split(",")
        if number > after and cells[0] == symbol and cells[3] and not cells[6]:
            return number
    raise AssertionError("no such line")


# -- equal ----------------------------------------------------------------------------------------------------------


def test_what_was_served_of_a_file_is_what_training_computes_of_it(journal: Path, data: Path) -> None:
    status, found = compare(journal, data)
    assert status == 0
    assert found["holds"]
    assert found["different"] == 0
    assert found["equal"] > 600
    reasons = without(found)
    assert set(reasons) == {"WARM_UP", "REJECTED", "OWN_FEATURES"} | ({"REFUSED"} & set(reasons))
    assert found["equal"] + sum(reasons.values()) == found["decisions"]
    assert found["file"]["rows"] - found["file"]["accepted"] == reasons["REJECTED"] - 1  # symbol C has no row


def test_what_the_fast_lane_served_is_what_training_computes(
    tmp_path: Path, requests: list[pb.PredictRequest], data: Path
) -> None:
    models = repository(tmp_path / "models", "micro10")
    status, found = compare(record(tmp_path / "journal", models, requests), data)
    assert status == 0
    assert found["equal"] > 600


def test_ticks_without_a_number_are_found_by_stamp_and_place(tmp_path: Path, models: Path) -> None:
    plain = trades(2, 500, numbered=False)
    path = tmp_path / "ticks.csv"
    write_csv(path, (request.tick for request in plain))
    status, found = compare(record(tmp_path / "journal", models, plain), path)
    assert status == 0
    assert found["equal"] > 200


def test_a_second_servers_windows_begin_where_it_began(tmp_path: Path, models: Path, data: Path) -> None:
    plain = trades(1, 900)
    status, found = compare(record(tmp_path / "journal", models, plain[:400], plain[400:]), data)
    assert status == 0, found["differences"]
    assert found["equal"] > 200


def test_a_server_that_missed_ticks_of_the_file_differs_where_it_did(tmp_path: Path, models: Path, data: Path) -> None:
    plain = trades(1, 900)
    status, found = compare(record(tmp_path / "journal", models, plain[:500] + plain[503:]), data)
    assert status == 1
    assert 500 < found["differences"][0]["sequence"] <= 530


def beginning(capture: Path, place: Path, lines: int) -> Path:
    with gzip.open(capture) as file:
        place.write_bytes(b"".join(islice(file, lines)))
    return place


def test_a_real_server_over_a_real_capture_serves_what_training_computes(tmp_path: Path) -> None:
    publish_logistic(tmp_path / "models", features=feature_set("micro32", GAP_NS), latency_budget_ms=60_000.0)
    source = str(beginning(capture_path(SPOT_ETH), tmp_path / "capture", lines=5_000))
    with served(tmp_path / "models", "--clock", "replay", environment={"TICKGATE_OBSERVER__MODE": "thread"}) as server:
        shape = ["--format", "binance", "--target", server.address, "--deadline-ms", "30000", "--stream"]
        done = run("replay-ticks", source, *shape)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.process.stop() == 0
        status, found = compare(server.process.journal, source, "--format", "binance")
    assert status == 0
    assert found["decisions"] == found["file"]["rows"]
    assert found["equal"] > 500
    assert set(without(found)) == {"WARM_UP"}


def test_published_ticks_are_told_by_their_symbols_where_they_changed_state(tmp_path: Path) -> None:
    rows = np.zeros(3, layout.DECISION)
    named, published = rows.view(layout.CONTROL), rows.view(layout.TICKS)
    said = json.dumps({"rows": [4], "symbols": ["A"]}).encode()
    for at, code, payload in ((0, ControlKind.SETTINGS, b"{}"), (1, ControlKind.SYMBOLS, said)):
        named["kind"][at], named["code"][at], named["parts"][at] = layout.RecordKind.CONTROL, code, 1
        named["payload_bytes"][at] = len(payload)
        named["payload"][at] = payload.ljust(layout.PAYLOAD_BYTES, b"\0")
    published["kind"][2], published["tick_count"][2] = layout.RecordKind.TICKS, 4
    outcomes = (TickOutcome.ACCEPTED, TickOutcome.REJECTED, TickOutcome.CONFIRMED, TickOutcome.HELD_BACK)
    for place, outcome in enumerate(outcomes):
        one = published["ticks"][2, place]
        one["row"], one["outcome"], one["exchange_ts_ns"], one["tick_sequence"] = 4, outcome, 100 + place, 7 + place
    found = list(ServedJournal(tmp_path)._of(rows, {}))
    assert found == [Began(), Applied("A", 100, 7), Applied("A", 102, 9)]


# -- different ------------------------------------------------------------------------------------------------------


def test_a_price_changed_in_one_row_is_reported_at_its_row(journal: Path, data: Path, tmp_path: Path) -> None:
    line = line_of(data, "A", 400)
    status, found = compare(journal, altered(data, tmp_path / "t.csv", line, 3, "100.005"))
    assert status == 1
    first = found["differences"][0]
    assert (first["symbol"], first["sequence"], first["line"]) == ("A", line - 1, line)
    assert (first["field"], first["training"]) == ("price", 100.005)
    assert first["served"] != first["training"]
    assert found["by_field"]["price"] == 1
    assert found["by_field"]["ret_1"] >= 1
    assert {one["symbol"] for one in found["differences"]} == {"A"}


def test_a_vector_that_is_off_by_one_bit_is_named_by_its_feature(journal: Path, data: Path) -> None:
    events = list(ServedJournal(journal).events())
    scored = [place for place, event in enumerate(events) if isinstance(event, Decided) and event.why is None]
    chosen = events[scored[100]]
    assert isinstance(chosen, Decided)
    vector = chosen.vector.copy()
    vector[4] = np.nextafter(vector[4], np.float32(1))
    events[scored[100]] = replace(chosen, vector=vector)
    sets = {found.schema_id: found for found in (feature_set(name, GAP_NS) for name in ("micro10", "micro32"))}
    comparison = Comparison(file_ticks.read(str(data), "csv"), sets, None, keep=5)
    comparison.take(events)
    (found,) = comparison.result.differences
    assert (found.record, found.symbol, found.field) == (chosen.sequence, chosen.symbol, "vol_10")
    assert (found.served, found.training) == (float(vector[4]), float(chosen.vector[4]))
    assert (comparison.result.equal, comparison.result.different) == (len(scored) - 1, 1)


def test_ticks_that_the_file_lacks_are_said_and_the_next_ones_differ(journal: Path, data: Path, tmp_path: Path) -> None:
    line = line_of(data, "B", 500)
    lines = data.read_text().splitlines()
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines[: line - 1] + lines[line:]))
    status, found = compare(journal, path)
    assert status == 1
    assert without(found)["ABSENT"] == 1
    assert found["differences"][0]["symbol"] == "B"
    assert found["differences"][0]["line"] >= line


def test_ticks_that_the_rules_reject_in_the_file_are_said(journal: Path, data: Path, tmp_path: Path) -> None:
    line = line_of(data, "B", 500)
    _, found = compare(journal, altered(data, tmp_path / "t.csv", line, 3, "nan"))
    assert without(found)["REJECTED_IN_FILE"] == 1


def test_another_files_ticks_give_nothing_to_compare_and_that_is_no_agreement(journal: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_csv(path, [tick("Z", START_NS, sequence=1, trade=(1.0, 1.0)).tick])
    status, found = compare(journal, path)
    assert (status, found["compared"], found["holds"]) == (1, 0, False)
    assert without(found)["ABSENT"] > 500


def test_a_feature_set_that_is_not_a_usual_one_is_named_and_found_in_the_repository(tmp_path: Path, data: Path) -> None:
    models = tmp_path / "models"
    publish_logistic(models, name="m", features=feature_set("micro10", 7 * SECOND_NS), latency_budget_ms=60_000.0)
    journal = record(tmp_path / "journal", models, trades(1, 900))
    status, found = compare(journal, data)
    assert (status, found["compared"]) == (1, 0)
    assert without(found)["OTHER_FEATURES"] > 500
    status, found = compare(journal, data, "--models", models)
    assert status == 0
    assert found["equal"] > 500


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_tables_say_what_json_says(journal: Path, data: Path, tmp_path: Path) -> None:
    _, found = compare(journal, data)
    shown = CliRunner().invoke(parity, ["--journal", str(journal), "--data", str(data)])
    assert shown.exit_code == 0
    assert f"{found['equal']:,}" in shown.output
    assert "Training and serving agree." in shown.output
    line = line_of(data, "A", 400)
    path = altered(data, tmp_path / "t.csv", line, 3, "100.005")
    worse = CliRunner().invoke(parity, ["--journal", str(journal), "--data", str(path)])
    assert worse.exit_code == 1
    assert "not shown to agree" in worse.output
    assert "100.005" in worse.output


def test_a_journal_or_a_file_that_is_none_is_a_clear_error(journal: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["--journal", str(journal), "--data", "absent.csv"], "absent.csv: cannot be read"),
        (["--journal", str(tmp_path), "--data", "sp600", "--format", "daily"], "no data set"),
    ):
        result = CliRunner().invoke(parity, arguments)
        assert result.exit_code == 1
        assert said in result.output


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 4)), min_size=1, max_size=30), st.integers(0, 3))
def test_the_trades_in_a_window_are_those_that_the_server_counts(drawn: list[tuple[int, int]], gap: int) -> None:
    kinds = np.array([kind for kind, _ in drawn])
    stamps_ns = np.cumsum([step for _, step in drawn]) + 1
    store = FeatureStore(feature_set("micro10", gap), 1)
    expected = []
    for kind, stamp_ns in zip(kinds.tolist(), stamps_ns.tolist(), strict=True):
        store.take(0, kind, stamp_ns, 9.0, 1.0, 8.0, 10.0, 1.0, 1.0)
        expected.append(int(store.counts[0]))
    empty = np.zeros(kinds.size, np.int64)
    values = np.ones((kinds.size, 6))
    found = OfSymbol(empty, kinds, stamps_ns, empty.astype(np.uint64), values, {})
    assert found.trades_in_window(gap, 0).tolist() == expected
