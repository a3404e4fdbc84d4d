"""A model with fundamentals from training to a server: joined as known then, counted, published, served the same."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.messages import tick
from tests.support.processes import run, served
from tests.training.runs import config, panel, short_run

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.features.schema import Fundamental, micro10, with_fundamentals
from tickgate_server.journal.layout import RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.models.loading import load
from tickgate_training import leak_check
from tickgate_training.config import TrainingConfig, parse_config
from tickgate_training.data import fundamentals
from tickgate_training.data.config import FundamentalsData, StampColumn
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import CellInvalid, ConfigInvalid, FeatureUndefined, FundamentalUnknown, LeakFound
from tickgate_training.run_folder import key_of
from tickgate_training.samples import prepare

HEADER = "symbol,name,as_of_ns,value\n"
SECOND = 1_000_000_000
START = 1_700_000_000
FEATURES = {
    "feature_set": "micro10+fundamentals",
    "fundamentals": [{"name": "eps", "maximum_age_s": 200}, {"name": "rating", "maximum_age_s": 100_000}],
}
TEN = with_fundamentals(micro10(), [Fundamental("eps", 200 * SECOND), Fundamental("rating", 100_000 * SECOND)])


def values(symbols: tuple[str, ...] = ("SIM",), *, seed: int = 1) -> str:
    """`eps` each 90 s or so, but for some minutes in the middle; `rating` from the fiftieth second on."""
    rng = np.random.default_rng(seed)
    lines = []
    for symbol in symbols:
        moments = np.sort(rng.choice(700, 9, replace=False))
        lines += [
            f"{symbol},eps,{(START + int(at)) * SECOND},{rng.normal():.17g}\n" for at in moments if not 250 < at < 460
        ]
        lines += [f"{symbol},rating,{(START + at) * SECOND},{at}.5\n" for at in (50, 400)]
    return "".join(lines)


def given(folder: Path, text: str | None = None) -> dict[str, object]:
    path = folder / "fundamentals.csv"
    path.write_text(HEADER + (values() if text is None else text))
    source = {"path": str(path), "as_of": {"name": "as_of_ns", "unit": "ns"}}
    return {"features": FEATURES, "fundamentals": source}


def settings(folder: Path, text: str | None = None) -> TrainingConfig:
    return config(folder, **given(folder, text))


def test_a_matrix_has_the_point_in_time_join_behind_the_features_of_ticks_and_counts_what_it_lacks(
    tmp_path: Path,
) -> None:
    frame = simulate(7000, 1, 0.3)
    samples = prepare(frame, settings(tmp_path))
    plain = prepare(frame, config(tmp_path))
    assert samples.feature_set == TEN
    assert np.ascontiguousarray(samples.features[:, :10]).tobytes() == plain.features.tobytes()
    source = FundamentalsData(path=tmp_path / "fundamentals.csv", as_of=StampColumn(name="as_of_ns", unit="ns"))
    ages = [found.maximum_age_ns for found in TEN.fundamentals]
    joined = fundamentals.join(frame, fundamentals.read(source), ["eps", "rating"], ages)
    assert samples.features[:, 10:].tobytes() == joined.astype(np.float32).tobytes()
    missing = np.isnan(joined) & plain.ready[:, None]
    assert samples.rows_without == {"eps": missing[:, 0].sum(), "rating": missing[:, 1].sum()}
    assert min(samples.rows_without.values()) > 100
    assert samples.ready.tolist() == (plain.ready & ~missing.any(axis=1)).tolist()


def test_each_symbol_of_a_panel_has_its_own_and_one_without_any_is_dropped_and_counted(tmp_path: Path) -> None:
    frame = panel("ABC")
    samples = prepare(frame, settings(tmp_path, values(("A", "B"))))
    plain = prepare(frame, config(tmp_path))
    of_c = samples.symbol == 2
    assert not samples.ready[of_c].any()
    assert samples.ready[~of_c].any()
    first = samples.features[samples.ready & (samples.symbol == 0), 10]
    assert not np.isin(first, samples.features[samples.ready & (samples.symbol == 1), 10]).any()
    assert samples.rows_without["rating"] >= plain.ready[of_c].sum()


def test_the_fingerprint_covers_the_values_that_are_joined_and_no_others(tmp_path: Path) -> None:
    frame = simulate(2000, 1, 0.3)

    def of(text: str) -> str:
        return prepare(frame, settings(tmp_path, text)).fingerprint

    whole = of(values())
    shuffled = "".join(reversed(values().splitlines(keepends=True)))
    assert of(shuffled) == whole
    assert of(values() + f"SIM,beta,{START * SECOND},1\nOTHER,eps,{START * SECOND},1\n") == whole
    assert len({whole, of(values(seed=2)), prepare(frame, config(tmp_path)).fingerprint}) == 3


def test_a_run_goes_on_where_it_was_though_the_file_moved_and_not_with_other_ages(tmp_path: Path) -> None:
    one = settings(tmp_path)
    (tmp_path / "moved").mkdir()
    moved = settings(tmp_path / "moved").model_copy(update={"runs": one.runs, "package": one.package})
    assert key_of(moved, "data") == key_of(one, "data")
    older = {**FEATURES, "fundamentals": [{"name": "eps", "maximum_age_s": 1}, FEATURES["fundamentals"][1]]}  # type: ignore[index]
    assert key_of(config(tmp_path, **(given(tmp_path) | {"features": older})), "data") != key_of(one, "data")


def test_the_leak_check_sees_a_join_that_looks_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = simulate(7000, 1, 0.3)
    asked = settings(tmp_path)
    samples = prepare(frame, asked)
    leak_check.check(frame, asked, samples)
    honest = leak_check.compute_features

    def ahead(columns: dict[str, np.ndarray], *rest: object) -> np.ndarray:
        found = honest(columns, *rest)  # type: ignore[arg-type]  # as it was called
        found[:, 11] = found[-1, 11]  # the newest rating for all
        return found

    monkeypatch.setattr(leak_check, "compute_features", ahead)
    with pytest.raises(LeakFound, match="features of SIM"):
        leak_check.check(frame, asked, samples)


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("SIM,eps,5,x\n", CellInvalid, "column 'value', row 0: found 'x', but this is a number"),
        ("SIM,eps,5,1e39\n", CellInvalid, "column 'value', row 0: .* a value is finite, in float32 too"),
        ("SIM,eps,0,1\n", CellInvalid, "column 'as_of_ns', row 0"),
        (f"SIM,{'n' * 49},5,1\n", CellInvalid, "column 'name', row 0: .* text of 1 to 48 bytes"),
        ("SIM,eps,5,1\n", FundamentalUnknown, "rating"),
        ("SIM,eps,5,1\nSIM,rating,6,1\n", FeatureUndefined, "eps"),  # far too old for every row
        ("OTHER,eps,5,1\nOTHER,rating,6,1\n", FeatureUndefined, "eps"),
    ],
)
def test_a_file_that_gives_no_such_features_is_an_error_that_says_where(
    tmp_path: Path, text: str, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        prepare(simulate(300, 1), settings(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fundamentals": None}, "a .fundamentals. file goes with a feature set that has fundamentals"),
        ({"features": {"feature_set": "micro10"}}, "a .fundamentals. file goes with a feature set"),
        ({"features": {**FEATURES, "feature_set": "micro10"}}, "features: .*micro10 takes no fundamentals"),
        ({"features": {"feature_set": "micro10+fundamentals"}}, "features: .*expected 1 to 16 fundamentals"),
        (
            {"features": {**FEATURES, "fundamentals": [{"name": "eps", "maximum_age_s": -1}]}},
            "features.fundamentals.0.maximum_age_s",
        ),
        (
            {"features": {**FEATURES, "fundamentals": [{"name": "gap_s", "maximum_age_s": 1}]}},
            "'gap_s' is the name of two features",
        ),
        (
            {"features": {**FEATURES, "fundamentals": [{"name": "P/E", "maximum_age_s": 1}]}},
            "features.fundamentals.0.name",
        ),
    ],
)
def test_a_configuration_that_makes_no_set_is_refused_by_key(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    document = config(tmp_path).model_dump(mode="json") | given(tmp_path) | change
    with pytest.raises(ConfigInvalid, match=why):
        parse_config(document)


def put(path: Path, text: str) -> None:
    """Other content in a file, whole at once."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.rename(path)


def journaled(folder: Path) -> list[bytes]:
    """The vector of each decision in order, empty where none was scored."""
    with JournalReader(folder) as reader:
        found = []
        while (rows := reader.poll(4096)).size:
            chosen = rows[(rows["kind"] == RecordKind.DECISION) & (rows["status"] == 0)]
            found += [row["vector"][: row["vector_width"]].tobytes() for row in chosen]
    return found


def test_a_trained_model_is_served_from_the_same_file_bit_for_bit_and_replays(tmp_path: Path) -> None:
    """A package trained on simulated ticks, a server of its own process, and new ticks of the same market."""
    package = {"name": "sim", "repository": str(tmp_path / "models"), "latency_budget_ms": 60_000.0}
    result = short_run(tmp_path, **given(tmp_path), package=package)
    assert result.published is not None
    said = result.published.manifest.features
    assert (said.feature_set, said.schema_id, said.names) == (TEN.name, TEN.schema_id, TEN.features)
    assert load(result.published.folder).features == TEN
    assert set(result.published.manifest.feature_statistics) == set(TEN.features)
    frame = simulate(700, seed=9, edge=0.3)
    late = START + 40  # known only in the middle of these ticks, which the file says all along
    text = values() + f"SIM,eps,{late * SECOND},-7.25\nSIM,rating,{START * SECOND + 1},1\n"
    again = settings(tmp_path, text)
    matrix = prepare(frame, again)
    journal, models = tmp_path / "journal", result.published.folder.parent.parent
    arguments = ("--journal", str(journal), "--clock", "replay")
    path = tmp_path / "fundamentals.csv"
    environment = {"TICKGATE_FUNDAMENTALS__FILE": str(path), "TICKGATE_FUNDAMENTALS__REFRESH_S": "0.1"}
    with served(models, *arguments, environment=environment) as server:
        (said_of_file,) = server.process.logged("fundamentals read")
        assert said_of_file["names"] == ["eps", "rating"]
        requests = [
            tick(
                "SIM",
                row["exchange_ts_ns"],
                sequence=row["sequence"],
                trade=(row["price"], row["size"]),
                quote=(row["bid"], row["ask"], row["bid_size"], row["ask_size"]),
            )
            for row in frame.iter_rows(named=True)
        ]
        answers = [answer.response for found in server.stream([requests]) for answer in found.results]
        of_new = [tick("NEW", START * SECOND + k, sequence=k + 1, trade=(1.0, 1.0)) for k in range(12)]
        stranger = [server.predict(request) for request in of_new][-1]
        put(path, HEADER + "garbage\n")
        refused = server.process.wait_for("fundamentals refused")
        put(path, HEADER + text + "".join(f"NEW,{name},{START * SECOND},1\n" for name in ("eps", "rating")))
        server.process.wait_for("fundamentals read")
        asked_again = [server.predict(of_new[-1])]
        while not asked_again[-1].features.ready and len(asked_again) < 10_000:  # until the desk's next turn
            asked_again.append(server.predict(of_new[-1]))
        assert server.process.stop() == 0
    assert [answer.features.ready for answer in answers] == matrix.ready.tolist()
    expected = [row.tobytes() if ready else b"" for row, ready in zip(matrix.features, matrix.ready, strict=True)]
    assert journaled(journal)[: len(expected)] == expected
    assert (not stranger.features.ready, stranger.signal.reason) == (True, pb.REASON_FEATURES_NOT_READY)
    assert refused["why"] == f"{path}: no fundamentals: row 0: expected 4 cells, as in the header, found 1"
    assert asked_again[-1].features.ready
    assert journaled(journal)[-1] != b""
    seen = matrix.features[matrix.ready, 10]
    of_late = matrix.stamps_ns[matrix.ready] >= late * SECOND
    assert (seen[of_late] == -7.25).any()
    assert not (seen[~of_late] == -7.25).any()
    done = run("replay", str(journal), "--models", str(models))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_whose_file_is_garbage_does_not_start_and_says_what_is_wrong_where(tmp_path: Path) -> None:
    path = tmp_path / "fundamentals.csv"
    path.write_text(f"{HEADER}SIM,eps,{START},many\n")
    (tmp_path / "models").mkdir()
    done = run(
        "serve",
        *("--models", str(tmp_path / "models"), "--journal", str(tmp_path / "journal")),
        *("--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
        environment={"TICKGATE_FUNDAMENTALS__FILE": str(path)},
    )
    assert done.returncode == 1
    assert f"{path}: no fundamentals: column 'value', row 0: found 'many', but this is a number" in done.stderr
