"""`tickgate models` on a folder of packages, without a server."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.support.packages import constant_onnx, edit_manifest, publish_forest, publish_logistic, publish_model
from tests.support.processes import START_UP_S, TICKGATE
from tests.support.promotion import verdict

from tickgate_server import model_commands
from tickgate_server.features.schema import feature_set, micro10
from tickgate_server.models import difference
from tickgate_server.models.aliases import change_alias, read_aliases
from tickgate_server.models.loading import load
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE
from tickgate_server.models.shadow_record import ShadowRecord, write_shadow_records

PATIENT_MS = 60_000.0
LOST = 3
BY = {"reason": "a test", "who": "tester"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`tiny` 1 and 2 have passed training's checks, 3 has not, 4 is damaged; production is 1, by its file."""
    folder = tmp_path / "models"
    for version, bias in ((1, 0.0), (2, 0.5)):
        publish_logistic(folder, version=version, bias=bias, promotion=verdict(), latency_budget_ms=PATIENT_MS)
    failing = verdict(deflated_sharpe_2014=0.5)
    publish_logistic(folder, version=3, promotion=failing, latency_budget_ms=PATIENT_MS)
    (publish_logistic(folder, version=4, promotion=verdict()) / MODEL_FILE).write_bytes(b"other")
    change_alias(folder / "tiny", "production", 1, expected=None, **BY)
    return folder


def models(folder: Path, verb: str, *arguments: str) -> Result:
    """The verb, in this process: one of its own takes a second to load what it stands on."""
    own = [verb, *arguments, "--repository", str(folder)]
    return CliRunner().invoke(model_commands.models, own, env={"COLUMNS": "600"})


def tell(folder: Path, verb: str, *arguments: str) -> Any:
    """What a verb told a program that went well."""
    ended = models(folder, verb, *arguments, "--json")
    assert (ended.exit_code, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]


def promote(folder: Path, version: int, *arguments: str) -> Result:
    return models(folder, "promote", "tiny", str(version), "--reason", "a test", *arguments)


def production(folder: Path) -> int | None:
    found = read_aliases(folder / "tiny")
    assert found is not None
    return found.production


# -- list, verify ------------------------------------------------------------------------------------------------------


def test_every_version_is_listed_with_its_fitness_its_aliases_and_its_verdict(folder: Path) -> None:
    change_alias(folder / "tiny", "shadow", 2, expected=None, **BY)
    table = rows(models(folder, "list").stdout)
    assert [row[:3] for row in table] == [
        ["tiny", str(n), fit] for n, fit in ((1, "yes"), (2, "yes"), (3, "yes"), (4, "no"))
    ]
    assert table[0][3:5] == [micro10().schema_id, "5 trades"]
    assert table[3][6].startswith(f"{folder / 'tiny' / '4' / MODEL_FILE}: sha256 is")
    assert [row[7] for row in table] == ["production", "shadow", "-", "-"]
    assert [row[8] for row in table] == ["passed", "passed", "fails deflated_sharpe_2014", "-"]


def test_a_program_is_told_the_same_of_every_version(folder: Path) -> None:
    found = tell(folder, "list")["versions"]
    assert [(one["version"], one["fit"], one["aliases"]) for one in found] == [
        (1, True, ["production"]),
        (2, True, []),
        (3, True, []),
        (4, False, []),
    ]
    assert (found[0]["engine"], found[3]["failed"]) == ("onnxruntime", "hash")
    assert {rule["name"]: rule["passed"] for rule in found[2]["verdict"]["checks"]}["deflated_sharpe_2014"] is False


def test_without_a_file_of_aliases_production_is_the_highest_fit_version(folder: Path) -> None:
    (folder / "tiny" / "aliases.json").unlink()
    assert [one["aliases"] for one in tell(folder, "list")["versions"]] == [[], [], ["production"], []]


def damage(folder: Path, check_: str) -> None:
    path = folder / "bad" / "1"
    if check_ == "manifest":
        (path / MANIFEST_FILE).unlink()
    elif check_ == "hash":
        (path / MODEL_FILE).unlink()
    elif check_ == "schema id":
        edit_manifest(path, lambda document: document["features"].update(schema_id="other"))
    elif check_ == "golden vectors":
        edit_manifest(path, lambda document: document["golden"]["outputs"].__setitem__(3, 0.999))
    elif check_ == "warm-up":
        edit_manifest(path, lambda document: document.update(latency_budget_ms=1e-6))


@pytest.mark.parametrize("check_", ["manifest", "hash", "schema id", "graph", "golden vectors", "warm-up"])
def test_verify_names_the_check_that_failed_those_before_it_and_those_it_did_not_reach(
    tmp_path: Path, check_: str
) -> None:
    if check_ == "graph":
        publish_model(tmp_path, constant_onnx(width=2), name="bad")
    else:
        publish_logistic(tmp_path, name="bad", latency_budget_ms=PATIENT_MS)
        damage(tmp_path, check_)
    ended = models(tmp_path, "verify", "bad", "1")
    assert ended.exit_code == 1
    table = rows(ended.stdout)
    names = [row[0] for row in table]
    assert names == ["manifest", "hash", "schema id", "graph", "golden vectors", "warm-up"]
    place = names.index(check_)
    assert [row[1] for row in table] == ["yes"] * place + ["no"] + ["not reached"] * (5 - place)
    assert table[place][2].startswith(str(tmp_path / "bad" / "1"))


def test_verify_of_a_version_that_is_fit_ends_with_0(folder: Path) -> None:
    ended = models(folder, "verify", "tiny", "2")
    assert (ended.exit_code, ended.stdout.splitlines()[0]) == (0, "tiny:2 is fit to serve")
    assert models(folder, "verify", "tiny").exit_code == 1  # 4 is among them


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("verify", "other"), "no model 'other'; known: tiny"),
        (("verify", "tiny", "9"), "tiny has no version 9 in the repository"),
        (("verify", "../models/tiny"), "no model '../models/tiny'"),
        (("diff", "tiny", "1", "4"), "sha256 is"),
        (("promote", "tiny", "9", "--reason", "a test"), "tiny has no version 9"),
        (("promote", "tiny", "4", "--reason", "a test"), "sha256 is"),
        (("rollback", "tiny", "--reason", "a test"), "no production version before this one is known"),
        (("promote", "tiny", "2", "--reason", " "), "reason: expected "),
    ],
)
def test_what_cannot_be_done_is_an_error_in_one_line_and_changes_nothing(
    folder: Path, arguments: tuple[str, ...], why: str
) -> None:
    before = (folder / "tiny" / "aliases.json").read_bytes()
    ended = models(folder, *arguments)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert why in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert (folder / "tiny" / "aliases.json").read_bytes() == before


# -- promotion ---------------------------------------------------------------------------------------------------------


def test_a_version_that_passes_the_rules_is_promoted_and_goes_back_again(folder: Path) -> None:
    ended = promote(folder, 2)
    assert (ended.exit_code, production(folder)) == (0, 2)
    assert ended.stdout.startswith("tiny: production 1 -> 2 at 2")
    assert {row[0] for row in rows(ended.stdout)} >= {"deflated_sharpe_2014", "shadow_record"}
    assert models(folder, "rollback", "tiny", "--reason", "worse").exit_code == 0
    assert production(folder) == 1


def test_a_version_that_does_not_is_refused_with_each_rule_and_its_figure(folder: Path) -> None:
    ended = promote(folder, 3)
    assert (ended.exit_code, production(folder)) == (1, 1)
    assert "deflated_sharpe_2014 0.5 against 1" in ended.stderr


def test_an_override_promotes_it_and_is_recorded_with_its_reason(folder: Path) -> None:
    assert promote(folder, 3, "--override", "the data are short").exit_code == 0
    aliases = read_aliases(folder / "tiny")
    assert aliases is not None
    assert (aliases.production, aliases.changes[-1].override) == (3, "the data are short")


def test_an_override_that_nothing_needed_is_not_recorded(folder: Path) -> None:
    assert promote(folder, 2, "--override", "in a hurry").exit_code == 0
    aliases = read_aliases(folder / "tiny")
    assert aliases is not None
    assert aliases.changes[-1].override == ""


def test_a_shadows_record_is_asked_for_where_the_settings_say_so(folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    file = tmp_path / "tickgate.toml"
    file.write_text(f"[journal]\nfolder = '{journal}'\n[promotion]\nshadow_decisions = 10\n")
    ended = promote(folder, 2, "--config", str(file))
    assert (ended.exit_code, production(folder)) == (1, 1)
    assert "shadow_record missing against 10" in ended.stderr
    record = ShadowRecord(
        name="tiny",
        version=2,
        against=1,
        decisions=10,
        agreement=1.0,
        mean_abs_divergence=0.0,
        max_abs_divergence=0.0,
        since_ns=1,
        until_ns=2,
    )
    write_shadow_records(journal, [record])
    assert promote(folder, 2, "--config", str(file)).exit_code == 0
    assert production(folder) == 2


def test_of_two_promotions_at_once_exactly_one_wins_and_the_other_is_told_so(folder: Path) -> None:
    publish_logistic(folder, version=5, promotion=verdict(), latency_budget_ms=PATIENT_MS)
    own = ("--reason", "a race", "--expected", "1", "--repository", str(folder))
    racers = [
        subprocess.Popen(
            [TICKGATE, "models", "promote", "tiny", version, *own],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version in ("2", "5")
    ]
    told = [racer.communicate(timeout=START_UP_S)[1] for racer in racers]
    statuses = [racer.returncode for racer in racers]
    assert sorted(statuses) == [0, LOST]
    winner = (2, 5)[statuses.index(0)]
    assert production(folder) == winner
    assert told[statuses.index(LOST)] == f"Error: tiny@production: expected version 1, it is {winner}\n"


# -- diff --------------------------------------------------------------------------------------------------------------


def test_two_versions_are_compared_by_facts_and_outputs(folder: Path) -> None:
    found = tell(folder, "diff", "tiny", "1", "2")
    assert found["versions"] == [1, 2]
    facts = {fact["name"]: fact for fact in found["facts"]}
    assert (facts["model_sha256"]["differs"], facts["schema_id"]["differs"]) == (True, False)
    assert [one["vectors"] for one in found["outputs"]] == [
        "golden vectors of 1",
        "golden vectors of 2",
        "random vectors",
    ]
    assert [one["rows"] for one in found["outputs"]] == [64, 64, 10_000]
    assert all(0.0 < one["mean_abs"] <= one["max_abs"] <= 1.0 for one in found["outputs"])
    table = rows(models(folder, "diff", "tiny", "1", "3").stdout)
    assert ["deflated_sharpe_2014", "1", "0.5", "yes"] in table


def test_a_version_does_not_differ_from_itself(folder: Path) -> None:
    found = tell(folder, "diff", "tiny", "2", "2")
    assert not any(fact["differs"] for fact in found["facts"])
    for one in found["outputs"]:
        assert (one["mean_abs"], one["max_abs"], one["same_direction"], one["same_signal"]) == (0.0, 0.0, 1.0, 1.0)


def test_outputs_are_compared_row_by_row(tmp_path: Path) -> None:
    first, second = (
        load(publish_forest(tmp_path, version=seed, seed=seed, decision_threshold=0.55, latency_budget_ms=PATIENT_MS))
        for seed in (1, 2)
    )
    inputs = np.random.default_rng(1).normal(size=(50, 10)).astype(np.float32)
    found = difference.difference("some", first, second, inputs)
    answers = [(first.scorer.score(row), second.scorer.score(row)) for row in inputs]
    off = [abs(two - one) for one, two in answers]

    def signal(up: float) -> int:
        return 0 if max(up, 1.0 - up) < 0.55 else 1 if up > 0.5 else -1

    assert found.rows == 50
    assert found.not_finite == 0
    assert found.mean_abs == pytest.approx(sum(off) / 50)
    assert found.max_abs == max(off)
    assert found.same_direction == sum((one > 0.5) == (two > 0.5) for one, two in answers) / 50
    assert found.same_signal == sum(signal(one) == signal(two) for one, two in answers) / 50
    assert 0.0 < found.same_signal < 1.0


def test_random_vectors_lie_within_the_training_ranges_of_both(tmp_path: Path) -> None:
    narrow = load(publish_logistic(tmp_path, version=1, latency_budget_ms=PATIENT_MS))
    wide = narrow.manifest.model_copy(
        update={
            "feature_statistics": {
                name: one.model_copy(update={"min": -9.0, "max": 1.0})
                for name, one in narrow.manifest.feature_statistics.items()
            }
        }
    )
    drawn = difference._random(narrow.manifest, wide)
    assert drawn.shape == (difference.RANDOM_ROWS, 10)
    assert -9.0 <= drawn.min() < -8.9
    assert 3.9 < drawn.max() <= 4.0


def test_versions_with_other_features_are_compared_by_their_facts_alone(tmp_path: Path) -> None:
    publish_logistic(tmp_path, version=1, latency_budget_ms=PATIENT_MS)
    publish_logistic(tmp_path, version=2, features=feature_set("micro32", 0), latency_budget_ms=PATIENT_MS)
    found = tell(tmp_path, "diff", "tiny", "1", "2")
    assert found["outputs"] == []
    assert found["why_not"].startswith("expected two versions with the same features, got schema ids micro10-")
    assert {fact["name"]: fact["differs"] for fact in found["facts"]}["schema_id"]
