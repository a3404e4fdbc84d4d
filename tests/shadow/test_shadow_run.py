"""One shadow over journals that the test writes: which decisions count, and what a stop at any point leaves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from structlog.testing import capture_logs
from tests.journal.journal_samples import _Model, approved, tick
from tests.shadow.shadowing import BUDGET, SHADOW, comparisons_of, probability, publish_both, record_of, set_shadow
from tests.support.packages import publish_logistic, publish_model

from tickgate_server.features.schema import micro10
from tickgate_server.journal.layout import VECTOR_WIDTH, Flags
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.aliases import AliasChange, Aliases, Canary
from tickgate_server.models.errors import LatencyOverBudget
from tickgate_server.models.loading import LoadedModel, load
from tickgate_server.models.package import MODEL_FILE, read_manifest
from tickgate_server.models.shadow_record import Missed, ShadowRecordInvalid, record_path, shadow_folder, write_record
from tickgate_server.shadow import scoring, service
from tickgate_server.shadow.scoring import ShadowRun
from tickgate_server.shadow.store import ALIASES, numbers

ALWAYS = Aliases(production=2, shadow=1)
NONE = Aliases(production=2)


def vector(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0.0, 1e-3, 10).astype(np.float32)


class Desk:
    """A repository with two versions, and a journal that decisions are put into."""

    def __init__(self, folder: Path) -> None:
        self.repository = publish_both(folder / "models")
        self.journal = folder / "journal"
        self.folder = shadow_folder(self.journal)
        self.writer = JournalWriter(self.journal, segment_records=64, retained_segments=4)
        self.models = {version: self.model(version) for version in (1, 2)}
        self.count = 0

    def model(self, version: int, name: str = "tiny", schema_id: str = "") -> LoadedModel:
        manifest = SimpleNamespace(model_sha256=read_manifest(self.repository / "tiny" / str(version)).model_sha256)
        return cast(
            "LoadedModel",
            _Model(
                name=name,
                version=version,
                schema_id=schema_id or micro10().schema_id,
                manifest=manifest,
                not_compiled="",
            ),
        )

    def decide(self, model: LoadedModel | None = None, *, asked: str = "", clock_ns: int = 0, **changes: Any) -> int:
        """One decision with a vector of its own; its sequence."""
        self.count += 1
        row = {"applied": True, "clock_ns": clock_ns, "vector": vector(self.count)}
        own = {key: changes.pop(key) for key in ("status", "flags", "vector") if key in changes}
        decision = approved(model=model or self.models[2], **changes)
        return self.writer.append_decision(tick(self.count, model=asked), decision, **{**row, **own})

    def fill(self, count: int) -> list[int]:
        return [self.decide() for _ in range(count)]

    def run(self, aliases: Aliases = ALWAYS) -> ShadowRun:
        return ShadowRun(self.repository, self.folder, {"": self.journal}, "tiny", 1, aliases, retained=1)

    def score(self, aliases: Aliases = ALWAYS) -> ShadowRun:
        """Everything there is, by a process of its own, as it were."""
        run = self.run(aliases)
        while run.step(aliases, 10.0):
            pass
        run.close()
        return run

    @property
    def compared(self) -> list[int]:
        return [] if not record_of(self.folder).stored else comparisons_of(self.folder)["journal_sequence"].tolist()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.writer.close()


def test_scores_are_those_of_the_loaded_version_bit_for_bit(desk: Desk) -> None:
    sequences = desk.fill(20)
    desk.score()
    found = comparisons_of(desk.folder)
    assert found["journal_sequence"].tolist() == sequences
    scorer = load(desk.repository / "tiny" / "1").scorer
    ups = [scorer.score(vector(number + 1)) for number in range(20)]
    assert found["shadow_value"].tolist() == [2.0 * up - 1.0 for up in ups]
    assert found["shadow_confidence"].tolist() == [max(up, 1.0 - up) for up in ups]
    assert ups == pytest.approx([probability(vector(number + 1), SHADOW) for number in range(20)], abs=1e-6)
    assert set(found["value"].tolist()) == {0.3}
    assert set(found["symbol"].tolist()) == {b"BTCUSDT"}


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 4},
        {"ready": False},
        {"flags": int(Flags.REPEATED)},
    ],
)
def test_what_was_not_answered_with_a_score_of_its_own_is_not_compared(desk: Desk, changes: dict[str, Any]) -> None:
    counted = desk.decide()
    desk.decide(**changes)
    desk.score()
    assert desk.compared == [counted]
    assert record_of(desk.folder).missed == {}


def test_other_names_and_the_shadow_itself_are_not_compared(desk: Desk) -> None:
    desk.decide(desk.models[1])
    desk.decide(desk.model(2, name="other"))
    desk.score()
    assert desk.compared == []
    assert record_of(desk.folder).missed == {}


@pytest.mark.parametrize(
    ("version", "asked", "aliases", "side"),
    [
        (2, "", NONE, "production"),
        (2, "tiny", Aliases(), "production"),
        (2, "tiny@production", Aliases(production=9), "production"),  # it answered as production, in flight maybe
        (2, "tiny:2", Aliases(production=2), "production"),
        (2, "tiny:2", Aliases(production=3), ""),
        (2, "tiny:2", Aliases(), ""),
        (2, "tiny:2", Aliases(canary=Canary(version=2, share_percent=5.0)), "canary"),
        (2, "", Aliases(production=3, canary=Canary(version=2, share_percent=5.0)), "canary"),
        (2, "tiny@shadow", Aliases(production=3), ""),
    ],
)
def test_which_side_a_decision_is_on(desk: Desk, version: int, asked: str, aliases: Aliases, side: str) -> None:
    desk.decide(desk.models[version], asked=asked)
    desk.score(aliases.model_copy(update={"shadow": 1}))
    found = [] if not desk.compared else [ALIASES[alias] for alias in comparisons_of(desk.folder)["alias"]]
    assert found == ([side] if side else [])


def _gone(desk: Desk) -> LoadedModel:
    model = desk.model(2)
    model.version = 7  # type: ignore[misc]  # a sample
    return model


def _other_bytes(desk: Desk, **changes: str) -> LoadedModel:
    model = desk.model(2, **changes)
    model.manifest.model_sha256 = "00" * 32  # type: ignore[misc]  # a sample
    return model


def _wrong_schema(desk: Desk) -> LoadedModel:
    return _other_bytes(desk, schema_id="micro10/other")


@pytest.mark.parametrize(
    ("model", "changes", "why"),
    [
        (_wrong_schema, {}, Missed.OTHER_FEATURES),
        (_gone, {}, Missed.MANIFEST_GONE),
        (_other_bytes, {}, Missed.MANIFEST_GONE),
        (None, {"scored": False}, Missed.ANSWER_INVALID),
        (None, {"vector": np.zeros(VECTOR_WIDTH + 1, np.float32)}, Missed.VECTOR_CUT),
    ],
)
def test_what_cannot_be_compared_is_counted_by_why(
    desk: Desk, model: Callable[[Desk], LoadedModel] | None, changes: dict[str, Any], why: Missed
) -> None:
    counted = desk.decide()
    desk.decide(model(desk) if model else None, **changes)
    desk.score()
    assert desk.compared == [counted]
    assert record_of(desk.folder).missed == {why: 1}


def test_a_shadow_whose_graph_fails_or_gives_no_probability_is_counted(desk: Desk) -> None:
    desk.fill(2)
    run = desk.run()
    run.step(ALWAYS, 0.0)

    class Broken:
        def __init__(self) -> None:
            self.outputs = iter([float("nan"), 1.5, -0.1])

        def score(self, _vector: object) -> float:
            return next(self.outputs)  # and then it fails

    model = load(desk.repository / "tiny" / "1")
    object.__setattr__(model, "scorer", Broken())
    run._model = model
    desk.fill(4)
    run.step(ALWAYS, 10.0)
    run.close()
    assert record_of(desk.folder).missed == {Missed.INVALID_OUTPUT: 4}
    assert record_of(desk.folder).decisions == 2


def change(revision: int, at_ns: int, alias: str, before: int | None, after: int | None) -> AliasChange:
    return AliasChange.model_validate_json(
        AliasChange.model_construct(
            revision=revision, at_ns=at_ns, alias=alias, before=before, after=after, who="t", reason="t"
        ).model_dump_json()
    )


def test_only_what_was_decided_while_it_was_the_shadow_is_compared_however_late_that_is_read(desk: Desk) -> None:
    changes = (
        change(1, 100, "shadow", None, 1),
        change(2, 200, "shadow", 1, None),
        change(3, 300, "shadow", None, 1),
        change(4, 400, "shadow", 1, 3),
    )
    aliases = Aliases(revision=4, production=2, shadow=3, changes=changes)
    clocks = [50, 99, 100, 150, 199, 200, 250, 300, 399, 400, 500]
    sequences = {clock: desk.decide(clock_ns=clock) for clock in clocks}
    run = desk.score(aliases)
    assert desk.compared == [sequences[clock] for clock in (100, 150, 199, 300, 399)]
    assert run.record.ended


def test_a_run_that_is_dropped_at_any_point_and_begun_again_compares_each_once(desk: Desk) -> None:
    sequences: list[int] = []
    rng = np.random.default_rng(5)
    run = desk.run()
    for _ in range(12):
        sequences += desk.fill(int(rng.integers(1, 20)))
        if rng.random() < 0.5:  # killed after it appended and before it committed
            run.step(ALWAYS, 0.0)
            sequences += desk.fill(3)
            for followed in run._followed.values():
                followed.catch_up()
            if run._pending:
                run._store.append(np.concatenate(run._pending))
            run.close()
            run = desk.run()
        else:
            run.step(ALWAYS, 10.0)
    run.close()
    run = desk.score()
    assert desk.compared == sequences
    assert run.record.decisions == len(sequences)
    assert run.record.lost_records == 0


def test_records_that_are_gone_before_they_are_read_are_lost_and_counted(desk: Desk) -> None:
    desk.fill(10)
    desk.score()
    position = record_of(desk.folder).positions[""]
    desk.fill(64 * 8)
    desk.writer.settle()
    with capture_logs() as logs:
        run = desk.score()
    (said,) = [line for line in logs if line["event"] == "records lost"]
    assert said["first"] == position
    assert run.record.lost_records == said["last"] + 1 - position
    assert run.record.decisions < 10 + 64 * 8
    assert desk.score().record.lost_records == run.record.lost_records


def test_records_that_went_while_it_was_no_shadow_are_not_lost(desk: Desk) -> None:
    desk.fill(10)
    desk.score()
    assert desk.score(NONE).record.ended
    desk.fill(64 * 8)
    desk.writer.settle()
    run = desk.score()
    assert run.record.lost_records == 0
    assert not run.record.ended


def test_a_journal_that_was_begun_anew_is_read_from_its_beginning(desk: Desk) -> None:
    desk.fill(30)
    desk.score()
    desk.writer.close()
    for path in desk.journal.glob("segment-*"):
        path.unlink()
    desk.writer = JournalWriter(desk.journal, segment_records=64)
    sequences = desk.fill(5)
    with capture_logs() as logs:
        run = desk.score()
    assert run.record.decisions == 35
    assert desk.compared[-5:] == sequences
    assert [line["event"] for line in logs].count("journal begun anew") == 1


def test_a_journal_that_lost_its_end_with_the_host_is_gone_on_with(desk: Desk) -> None:
    desk.fill(30)
    record = desk.score().record
    write_record(desk.folder, record.model_copy(update={"positions": {"": record.positions[""] + 50}}))
    with capture_logs() as logs:
        run = desk.run()
    sequences = desk.fill(5)
    run.step(ALWAYS, 10.0)
    run.close()
    assert [line["records"] for line in logs if line["event"] == "journal is shorter than it was"] == [50]
    assert desk.compared[-5:] == sequences
    assert record_of(desk.folder).decisions == 35


def test_what_cannot_be_written_is_kept_and_nothing_more_is_read(desk: Desk) -> None:
    desk.fill(5)
    run = desk.run()
    run.step(ALWAYS, 10.0)
    path = record_path(desk.folder, "tiny", 1)
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()  # a rename onto it fails
    sequences = desk.fill(5)
    with capture_logs() as logs:
        assert not run.step(ALWAYS, 10.0)
        desk.fill(7)
        assert not run.step(ALWAYS, 10.0)
        assert not run.step(ALWAYS, 10.0)
    assert [line["event"] for line in logs] == ["shadow not recorded"]
    path.rmdir()
    path.write_bytes(kept)
    run.step(ALWAYS, 10.0)
    run.close()
    assert record_of(desk.folder).decisions == 17
    assert desk.compared[5:10] == sequences
    assert len(set(desk.compared)) == 17


def test_a_version_that_fails_is_tried_again_when_its_files_change(desk: Desk) -> None:
    graph = desk.repository / "tiny" / "1" / MODEL_FILE
    right = graph.read_bytes()
    graph.write_bytes(right[:-10])
    run = desk.run()
    desk.fill(3)
    run.step(ALWAYS, 10.0)
    run.step(ALWAYS, 10.0)
    assert (run.record.load_failures, run.record.load_check) == (1, "HashMismatch")
    assert run.record.missed == {Missed.NOT_LOADED: 3}
    graph.write_bytes(right)
    desk.fill(2)
    run.step(ALWAYS, 10.0)
    run.close()
    assert (run.record.load_failures, run.record.load_check, run.record.decisions) == (1, "", 2)


@pytest.mark.parametrize(
    ("publish", "check"),
    [
        (lambda repository: publish_logistic(repository, version=5, latency_budget_ms=1e-6), "LatencyOverBudget"),
        (lambda repository: publish_model(repository, b"no graph", version=5, **BUDGET), "GraphInvalid"),
        (lambda _repository: None, "PackageFileMissing"),
    ],
)
def test_every_check_of_loading_is_made(desk: Desk, publish: Callable[[Path], object], check: str) -> None:
    publish(desk.repository)
    aliases = Aliases(production=2, shadow=5)
    run = ShadowRun(desk.repository, desk.folder, {"": desk.journal}, "tiny", 5, aliases, retained=1)
    run.step(aliases, 10.0)
    run.close()
    assert record_of(desk.folder, 5).load_check == check


def test_a_warm_up_that_was_interrupted_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    def slow_at_first(folder: Path) -> LoadedModel:
        tries.append(folder)
        if len(tries) < scoring.LOAD_TRIES:
            raise LatencyOverBudget(folder, "interrupted")
        return load(folder)

    monkeypatch.setattr(scoring, "load", slow_at_first)
    desk.fill(2)
    assert desk.score().record.decisions == 2
    assert len(tries) == scoring.LOAD_TRIES


def test_a_record_of_other_bytes_is_not_added_to(desk: Desk) -> None:
    desk.fill(2)
    record = desk.score().record
    write_record(desk.folder, record.model_copy(update={"model_sha256": "0" * 64}))
    desk.fill(2)
    run = desk.score()
    assert (run.record.load_check, run.record.decisions) == ("HashMismatch", 2)
    assert "if that is over, remove its folder" in run.record.load_why


def test_a_record_that_cannot_be_read_is_not_written_over(desk: Desk) -> None:
    path = record_path(desk.folder, "tiny", 1)
    path.parent.mkdir(parents=True)
    path.write_text("half a rec")
    with pytest.raises(ShadowRecordInvalid, match="Invalid JSON"):
        desk.run()
    assert path.read_text() == "half a rec"


def test_decisions_of_a_model_that_nobody_knows_count_as_lost(desk: Desk) -> None:
    desk.fill(2)
    run = desk.run()
    run._take(0, run._followed[""]._reader.poll(), {})
    assert (run._lost, run._pending) == (2, [])
    run.close()


def test_old_comparisons_go_and_the_record_counts_them_still(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "ComparisonStore", _small_store)
    desk.fill(45)
    run = desk.score()
    home = record_path(desk.folder, "tiny", 1).parent
    assert run.record.decisions == run.record.stored == 45
    assert numbers(home) == [5]
    assert comparisons_of(desk.folder)["sequence"].tolist() == [41, 42, 43, 44, 45]


def test_comparisons_of_old_shadows_go_and_their_records_stay(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "KEPT_VERSIONS", 1)
    end = Event()
    end.set()  # one look at everything
    before = None
    for version in (3, 4, 5, None):
        if version is not None:
            publish_logistic(desk.repository, version=version, **BUDGET)
        set_shadow(desk.repository, version, expected=before)
        desk.fill(2)
        service.ShadowScorer(desk.repository, {"": desk.journal}, desk.folder, retained=1).run(end)
        before = version
    homes = {version: record_path(desk.folder, "tiny", version).parent for version in (3, 4, 5)}
    assert {version: numbers(home) for version, home in homes.items()} == {3: [], 4: [], 5: [1]}
    assert {version: record_of(desk.folder, version).ended for version in homes} == {3: True, 4: True, 5: True}
    assert all(record_of(desk.folder, version).decisions for version in homes)


def _small_store(folder: Path, stored: int, *, retained: int) -> scoring.ComparisonStore:
    return _Store(folder, stored, retained=retained, capacity=10)


_Store = scoring.ComparisonStore
