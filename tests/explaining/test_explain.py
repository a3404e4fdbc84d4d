"""A decision explained: out of the journal and out of the archive, against the answer that was given."""

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result
from tests.archive.archiving import archive
from tests.support.operated import Operated
from tests.support.packages import edit_manifest, publish_forest, publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.archive.query import DecisionLog
from tickgate_server.explaining.commands import explain as command
from tickgate_server.explaining.errors import RequestAmbiguous, RequestUnknown
from tickgate_server.explaining.explanation import Explanation, explain, percentile
from tickgate_server.explaining.page import page
from tickgate_server.models.package import FeatureStatistics
from tickgate_server.risk.checks import CHECKS


class Asked:
    """A journal of an engine with a forest and a model that is none, what was answered, and an archive of it all."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        publish_forest(self.models, name="trees", latency_budget_ms=60_000.0)
        publish_logistic(self.models, name="line", latency_budget_ms=60_000.0)
        self.journal, self.archive = folder / "journal", folder / "log"
        engine = Operated(self.journal, self.models)
        self.answers: dict[str, pb.PredictResponse] = {}
        try:
            for number in range(40):
                for name in ("trees", "line"):
                    found = engine.ask(name, symbol=f"S-{name}", request_id=f"{name}-{number}")
                    assert isinstance(found, pb.PredictResponse)
                    self.answers[f"{name}-{number}"] = found
            again = engine.request("trees", "S-trees", request_id="again")
            self.answers["again"] = engine.answer(again)  # type: ignore[assignment]
            engine.answer(again)
            engine.ask("nobody", request_id="to-nobody")
            engine.ask("trees", price=float("nan"), request_id="gibberish")
            engine.ask("nobody", request_id="twice")
            engine.ask("nobody", request_id="twice")
        finally:
            engine.close()
        archive(self.archive, self.journal, status=folder)

    def explain(self, request_id: str, sequence: int | None = None) -> Explanation:
        return explain(DecisionLog(None, {"": self.journal}), self.models, request_id, sequence)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("explained"))


@pytest.fixture
def run() -> Iterator[Result]:
    yield CliRunner()  # type: ignore[misc]
    structlog.reset_defaults()


def test_prediction_signal_and_measured_values_are_those_of_the_answer(asked: Asked) -> None:
    answer, found = asked.answers["trees-39"], asked.explain("trees-39")
    assert found.decision["value"] == answer.prediction.value
    assert found.decision["action"] == pb.Action.Name(answer.signal.action).removeprefix("ACTION_")
    assert found.decision["reason"] == pb.Reason.Name(answer.signal.reason).removeprefix("REASON_")
    told = {pb.Reason.Name(check.reason).removeprefix("REASON_"): check for check in answer.signal.checks}
    assert len(told) == len(found.checks) == len(CHECKS)
    for shown in found.checks:
        check = told[shown.name]
        assert shown.value == pytest.approx(check.value, nan_ok=True)
        if shown.outcome != "off":
            assert shown.limit == check.limit
            assert (shown.outcome in {"passes", "waived"}) == (check.passed or shown.outcome == "waived")
    assert {check.outcome for check in found.checks if check.name == "VAR_PORTFOLIO"} == {"off"}
    assert not found.notes


def test_contributions_add_up_to_the_margin_that_gives_the_recorded_prediction(asked: Asked) -> None:
    found = asked.explain("trees-39")
    assert found.contributions is not None
    of = found.contributions.attribution
    assert sum(one.contribution or 0.0 for one in found.features) == pytest.approx(of.margin - of.base, abs=1e-9)
    assert found.contributions.log_odds
    up = 1.0 / (1.0 + math.exp(-of.margin))
    assert 2.0 * up - 1.0 == pytest.approx(found.decision["value"], abs=1e-5)
    assert found.contributions.agrees


def test_the_archive_explains_as_the_journal_does(asked: Asked) -> None:
    from_archive = explain(DecisionLog(asked.archive, {}), asked.models, "trees-39")
    from_journal = asked.explain("trees-39")
    assert from_archive.features == from_journal.features
    assert [repr(check) for check in from_archive.checks] == [repr(check) for check in from_journal.checks]
    assert from_archive.decision["sequence"] == from_journal.decision["sequence"]


@pytest.mark.parametrize(
    ("request_id", "said"),
    [
        ("line-39", "they are of tree models"),
        ("line-2", "the model did not score"),
        ("to-nobody", "no model was found"),
    ],
)
def test_what_cannot_be_shown_is_said(asked: Asked, request_id: str, said: str) -> None:
    found = asked.explain(request_id)
    assert found.contributions is None
    assert any(said in note for note in found.notes), found.notes


def test_features_carry_their_percentile_and_names_of_the_package(asked: Asked) -> None:
    shown = {one.name: one for one in asked.explain("line-39").features}
    assert list(shown)[:2] == ["ret_1", "ret_5"]
    assert shown["ret_1"].percentile == pytest.approx(0.5, abs=0.05)  # of -4, -1, 0, 1, 4: near 0
    assert all(one.percentile is not None for one in shown.values())


@pytest.mark.parametrize(
    ("value", "share"),
    [(-5.0, 0.0), (-4.0, 0.0), (-2.5, 0.125), (-1.0, 0.25), (0.5, 0.625), (4.0, 1.0), (9.0, 1.0)],
)
def test_percentiles_by_hand(value: float, share: float) -> None:
    trained = FeatureStatistics(mean=0.0, std=1.0, min=-4.0, max=4.0, quantiles=(-1.0, 0.0, 1.0))
    assert percentile(trained, value) == pytest.approx(share)


def test_a_value_that_many_training_rows_have_stands_in_their_middle() -> None:
    trained = FeatureStatistics(mean=0.0, std=1.0, min=-1.0, max=1.0, quantiles=(0.0, 0.0, 0.0, 1.0))
    assert percentile(trained, 0.0) == pytest.approx(0.4)
    assert percentile(trained, 1.0) == pytest.approx(0.9)
    assert math.isnan(percentile(trained, math.nan))


def test_another_model_under_the_same_version_is_not_taken_for_the_one_that_decided(
    asked: Asked, tmp_path: Path
) -> None:
    changed = tmp_path / "models"
    shutil.copytree(asked.models, changed)
    (changed / "trees" / "1" / "model.onnx").write_bytes(b"another")
    found = explain(DecisionLog(None, {"": asked.journal}), changed, "trees-39")
    assert found.contributions is None
    assert found.features[0].name == "feature 0"
    assert any("another model than decided" in note for note in found.notes)
    edit_manifest(changed / "trees" / "1", lambda manifest: manifest.pop("golden"))
    assert "not at hand" in explain(DecisionLog(None, {"": asked.journal}), changed, "trees-39").notes[0]


def test_a_repeated_request_is_explained_by_its_first_answer(asked: Asked) -> None:
    found = asked.explain("again")
    assert not found.decision["repeated"]
    assert found.repeats == 1


def test_unknown_and_ambiguous_requests_are_refused(asked: Asked) -> None:
    for unknown in ("nobody's", "", "x' OR '1'='1"):
        with pytest.raises(RequestUnknown):
            asked.explain(unknown)
    with pytest.raises(RequestAmbiguous, match="decided 2 times") as refused:
        asked.explain("twice")
    assert asked.explain("twice", refused.value.sequences[1]).decision["sequence"] == refused.value.sequences[1]
    with pytest.raises(RequestUnknown):
        asked.explain("twice", 1)


@pytest.mark.parametrize("request_id", ["trees-39", "line-39", "trees-0", "to-nobody", "gibberish", "again"])
def test_text_and_page_say_it_all_for_every_kind_of_decision(
    asked: Asked, tmp_path: Path, request_id: str, run: CliRunner
) -> None:
    html = tmp_path / "found.html"
    where = ["--journal", str(asked.journal), "--archive", "none", "--models", str(asked.models), "--html", str(html)]
    told = run.invoke(command, [request_id, *where], env={"COLUMNS": "200"})
    assert told.exit_code == 0, told.output
    found, text = asked.explain(request_id), html.read_text(encoding="utf-8")
    for said in (request_id, found.decision["status"], *(one.name for one in found.features)):
        assert said in told.output
        assert said in text
    for check in found.checks:
        assert check.name in told.output
        assert check.name in text
    assert not re.search(r"<script|src=|href=|url\(|@import", text)


def test_the_page_shows_texts_of_others_as_text(asked: Asked) -> None:
    found = asked.explain("to-nobody")
    decision = {**found.decision, "request_id": "<script>alert(1)</script>", "model_asked": "<b>&"}
    shown = page(Explanation(decision, 0, (), (), None, None, ("<i>note",)))
    assert "<script>" not in shown
    assert "&lt;b&gt;&amp;" in shown
    assert "&lt;i&gt;note" in shown


def test_the_command_says_what_is_unknown(asked: Asked, run: CliRunner) -> None:
    told = run.invoke(command, ["nobody's", "--journal", str(asked.journal), "--archive", "none"])
    assert told.exit_code == 1
    assert "no decision has request id" in told.output
