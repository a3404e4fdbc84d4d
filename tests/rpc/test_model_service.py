"""ModelService on the admin listener and health by model, on both transports of a real server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.desk import refused
from tests.support.messages import tick
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, served
from tests.support.promotion import verdict

from tickgate.v1 import model_pb2 as pb
from tickgate.v1 import model_pb2_grpc, signal_pb2
from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.models.aliases import change_alias, read_aliases
from tickgate_server.models.package import MODEL_FILE
from tickgate_server.models.shadow_record import ShadowRecord, write_shadow_records

SERVICE = "tickgate.v1.ModelService"
PATIENT_MS = 60_000.0
NAMES = ("START", "LOADING", "READY", "FAILED", "UNLOADING", "UNLOADED")
METHODS = (
    "ListModels",
    "LoadModel",
    "UnloadModel",
    "SetAlias",
    "RollBack",
    "SetCanary",
    "SetShadow",
)
WHY = {"reason": "a test", "who": "tester"}


@dataclass(frozen=True)
class ModelsOf:
    """A server's models as a deployer reaches them."""

    server: Served
    repository: Path
    channel: grpc.Channel
    stub: model_pb2_grpc.ModelServiceStub

    def aliases(self, name: str) -> pb.ModelAliases:
        (found,) = self.stub.ListModels(pb.ListModelsRequest(name=name), timeout=CALL_S).aliases
        return found

    def version(self, name: str, version: int) -> pb.ModelVersionStatus | None:
        found = self.stub.ListModels(pb.ListModelsRequest(name=name), timeout=CALL_S).versions
        return next((one for one in found if one.version == version), None)

    def promote(self, name: str, version: int, expected: int, **fields: Any) -> Any:
        """A call that is under way."""
        request = pb.SetAliasRequest(
            name=name,
            alias=pb.MODEL_ALIAS_PRODUCTION,
            version=version,
            expected_version=expected,
            **{**WHY, **fields},
        )
        return self.stub.SetAlias.future(request, timeout=CALL_S)

    def load(self, name: str, version: int) -> pb.ModelVersionStatus:
        return self.stub.LoadModel(pb.LoadModelRequest(name=name, version=version, **WHY), timeout=CALL_S).version

    def unload(self, name: str, version: int, *, force: bool = False) -> None:
        request = pb.UnloadModelRequest(name=name, version=version, force=force, **WHY)
        self.stub.UnloadModel(request, timeout=CALL_S)

    def answers(self, name: str, symbol: str = "A") -> int:
        """The version that answers for a model now."""
        return int(self.server.predict(tick(symbol, 1, trade=(1.0, 1.0), model=name)).model.version)

    def package(self, name: str, versions: int = 2, **changes: Any) -> None:
        """Publish a model of a test's own, of which version 1 is named production before any is loaded."""
        for version in range(1, versions + 1):
            publish_logistic(
                self.repository,
                name=name,
                version=version,
                **{"promotion": verdict(), "latency_budget_ms": PATIENT_MS, **changes},
            )
        change_alias(self.repository / name, "production", 1, expected=None, **WHY)
        watch = self.stub.WatchModels(pb.WatchModelsRequest(name=name), timeout=CALL_S)
        self.load(name, 1)
        for told in watch:  # until the server has read the aliases too
            known = [*told.models.aliases, *(one.aliases for one in told.changes if one.HasField("aliases"))]
            if any(one.revision and one.serving for one in known):
                watch.cancel()
                return


@pytest.fixture(scope="module")
def models(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelsOf]:
    """A server that starts with `tiny` 1 to 3, 3 damaged; tests bring models of their own."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        publish_logistic(folder, version=version, promotion=verdict(), latency_budget_ms=PATIENT_MS)
    (publish_logistic(folder, version=3) / MODEL_FILE).write_bytes(b"other")
    asked = {"TICKGATE_PROMOTION__SHADOW_AGREEMENT": "0.9"}
    arguments = ("--transport", transport, "--clock", "replay", "--default-model", "tiny")
    with (
        served(folder, *arguments, environment=asked) as server,
        grpc.insecure_channel(server.admin, options=CHANNEL_OPTIONS) as channel,
    ):
        yield ModelsOf(server, folder, channel, model_pb2_grpc.ModelServiceStub(channel))


def controls(models: ModelsOf) -> list[dict[str, Any]]:
    """The changes of aliases that the journal has."""
    with JournalReader(models.server.process.journal) as reader:
        return [
            dict(entry.payload)
            for entry in reader
            if isinstance(entry, ControlEntry) and entry.code == ControlKind.ALIAS_CHANGED
        ]


# -- listing -----------------------------------------------------------------------------------------------------------


def test_every_version_is_listed_with_its_state_its_facts_and_what_means_it(models: ModelsOf) -> None:
    found = models.stub.ListModels(pb.ListModelsRequest(name="tiny"), timeout=CALL_S)
    assert [(one.version, one.state) for one in found.versions] == [
        (1, pb.MODEL_STATE_READY),
        (2, pb.MODEL_STATE_READY),
        (3, pb.MODEL_STATE_FAILED),
    ]
    assert found.versions[2].reason.startswith("sha256 is")
    facts = found.versions[0].facts
    assert facts.engine == signal_pb2.INFERENCE_ENGINE_ONNXRUNTIME
    assert facts.not_compiled
    assert facts.warm_up_us_p99 > 0.0
    assert (facts.verdict.passed, facts.verdict.trials) == (True, 3)
    assert not found.versions[2].HasField("facts")
    assert all(one.since_ns > 0 for one in found.versions)
    (aliases,) = found.aliases
    assert (aliases.production, aliases.serving, aliases.implied) == (2, 2, True)  # no file names any
    assert list(found.versions[1].aliases) == [pb.MODEL_ALIAS_PRODUCTION]


def test_a_model_that_is_not_there_is_not_found(models: ModelsOf) -> None:
    code, message = refused(models.stub.ListModels, pb.ListModelsRequest(name="nobody"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "nobody" in message


@pytest.mark.parametrize("method", [*METHODS, "WatchModels"])
def test_bytes_that_are_no_request_are_invalid(models: ModelsOf, method: str) -> None:
    path = f"/{SERVICE}/{method}"
    watches = method == "WatchModels"
    call = models.channel.unary_stream(path) if watches else models.channel.unary_unary(path).future
    with pytest.raises(grpc.RpcError) as caught:
        raise call(b"\xff", timeout=CALL_S).exception()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


PRODUCTION = pb.MODEL_ALIAS_PRODUCTION


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("LoadModel", pb.LoadModelRequest(name="tiny", version=1), "reason"),
        ("LoadModel", pb.LoadModelRequest(name="../tiny", version=1, **WHY), "name"),
        ("LoadModel", pb.LoadModelRequest(name="tiny", version=0, **WHY), "version"),
        ("UnloadModel", pb.UnloadModelRequest(name="tiny", version=1, reason=" "), "reason"),
        ("UnloadModel", pb.UnloadModelRequest(name="", version=1, **WHY), "name"),
        ("SetAlias", pb.SetAliasRequest(name="tiny", version=1, **WHY), "alias"),
        ("SetAlias", pb.SetAliasRequest(name="tiny", version=1, alias=99, **WHY), "alias"),
        ("SetAlias", pb.SetAliasRequest(name="tiny", version=1, alias=pb.MODEL_ALIAS_CANARY, **WHY), "alias"),
        ("SetAlias", pb.SetAliasRequest(name="tiny", alias=PRODUCTION, **WHY), "version"),
        ("SetAlias", pb.SetAliasRequest(name="tiny", version=1, alias=PRODUCTION), "reason"),
        ("SetAlias", pb.SetAliasRequest(name="tiny", version=1, alias=PRODUCTION, override=" ", **WHY), "override"),
        (
            "SetAlias",
            pb.SetAliasRequest(name="tiny", version=1, alias=PRODUCTION, expected_version=2, reason="r" * 201),
            "reason",
        ),
        ("RollBack", pb.RollBackRequest(name="tiny", expected_version=1), "reason"),
        ("SetCanary", pb.SetCanaryRequest(name="tiny", version=1, **WHY), "share_percent"),
        ("SetCanary", pb.SetCanaryRequest(name="tiny", version=1, share_percent=100.1, **WHY), "share_percent"),
        (
            "SetCanary",
            pb.SetCanaryRequest(name="tiny", version=1, share_percent=float("nan"), **WHY),
            "share_percent",
        ),
        ("SetCanary", pb.SetCanaryRequest(name="tiny", share_percent=1.0, **WHY), "share_percent"),
        ("SetShadow", pb.SetShadowRequest(name="tiny", version=1), "reason"),
    ],
)
def test_a_field_that_is_not_as_it_should_be_is_named_and_nothing_changes(
    models: ModelsOf, method: str, request_: Message, field: str
) -> None:
    before = models.aliases("tiny")
    code, message = refused(getattr(models.stub, method), request_)
    assert (code, message.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert models.aliases("tiny") == before


@pytest.mark.parametrize(
    "request_",
    [
        pb.LoadModelRequest(name="tiny", version=99, **WHY),
        pb.SetAliasRequest(name="tiny", version=99, alias=PRODUCTION, expected_version=2, **WHY),
        pb.SetShadowRequest(name="tiny", version=99, **WHY),
        pb.SetCanaryRequest(name="nobody", version=1, share_percent=1.0, **WHY),
    ],
    ids=lambda request: type(request).__name__,
)
def test_a_version_that_is_not_in_the_repository_is_not_found(models: ModelsOf, request_: Message) -> None:
    method = type(request_).__name__.removesuffix("Request")
    assert refused(getattr(models.stub, method), request_)[0] is grpc.StatusCode.NOT_FOUND


# -- promotion ---------------------------------------------------------------------------------------------------------


def test_of_two_promotions_at_once_exactly_one_wins_and_the_other_learns_the_current_version(models: ModelsOf) -> None:
    models.package("race", versions=3)
    racers = {version: models.promote("race", version, 1) for version in (2, 3)}
    codes = {version: call.code() for version, call in racers.items()}
    assert sorted(code.name for code in codes.values()) == ["ABORTED", "OK"]
    winner = next(version for version, code in codes.items() if code is grpc.StatusCode.OK)
    (lost,) = (call for version, call in racers.items() if version != winner)
    assert lost.details() == f"race@production: expected version 1, it is {winner}"
    assert models.aliases("race").production == models.answers("race") == winner


def test_a_promotion_against_the_rules_is_refused_and_changes_nothing(models: ModelsOf) -> None:
    models.package("luck", promotion=verdict(deflated_sharpe_2014=0.5, round_trips=0.0))
    call = models.promote("luck", 2, 1)
    assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert call.details().startswith("luck:2 is not promoted without an override: deflated_sharpe_2014 0.5 against 1")
    assert "; round_trips 0 against 1" in call.details()
    assert models.answers("luck") == 1
    assert models.version("luck", 2) is None  # it was not even loaded
    assert [one["alias"] for one in controls(models) if one["name"] == "luck"] == ["production"]  # of its beginning


def test_an_override_is_told_to_the_repository_the_journal_and_the_log(models: ModelsOf) -> None:
    models.package("bold", promotion=None)
    rules = models.promote("bold", 2, 1, override="the desk has looked at it").result().rules
    assert (rules[0].name, rules[0].passed, rules[0].required) == ("verdict", False, True)
    assert models.answers("bold") == 2
    aliases = read_aliases(models.repository / "bold")
    assert aliases is not None
    last = aliases.changes[-1]
    assert (last.override, last.who, last.reason) == ("the desk has looked at it", "tester", "a test")
    assert controls(models)[-1] == {"name": "bold", **json.loads(last.model_dump_json())}
    line = models.server.process.wait_for("promotion overridden")
    assert (line["model"], line["version"], line["override"], line["who"]) == ("bold", 2, last.override, "tester")


def test_an_override_that_nothing_needed_is_not_recorded(models: ModelsOf) -> None:
    models.package("calm")
    found = models.promote("calm", 2, 1, override="in a hurry").result().aliases
    assert (found.production, found.changes[-1].override) == (2, "")


def test_what_a_version_has_shown_as_a_shadow_counts(models: ModelsOf) -> None:
    models.package("shown")
    shown = {
        "name": "shown",
        "version": 2,
        "against": 1,
        "decisions": 10,
        "mean_abs_divergence": 0.0,
        "max_abs_divergence": 0.0,
        "since_ns": 1,
        "until_ns": 2,
    }
    write_shadow_records(models.server.process.journal, [ShadowRecord(agreement=0.5, **shown)])
    rules = {rule.name: rule for rule in models.promote("shown", 2, 1).result().rules}
    assert (rules["shadow_agreement"].value, rules["shadow_agreement"].limit) == (0.5, 0.9)
    assert not rules["shadow_agreement"].passed
    assert not rules["shadow_agreement"].required  # these settings ask for no minimum of decisions


def test_a_version_that_does_not_load_is_not_promoted_and_what_answers_stays(models: ModelsOf) -> None:
    models.package("worse")
    (models.repository / "worse" / "2" / MODEL_FILE).write_bytes(b"other")
    call = models.promote("worse", 2, 1)
    assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "sha256 is" in call.details()
    assert models.answers("worse") == models.aliases("worse").production == 1


def test_a_rollback_takes_effect_for_the_next_request_and_loads_nothing(models: ModelsOf) -> None:
    models.package("back")
    models.promote("back", 2, 1).result()
    before = models.version("back", 1)
    assert models.answers("back") == 2
    found = models.stub.RollBack(pb.RollBackRequest(name="back", expected_version=2, **WHY), timeout=CALL_S).aliases
    assert models.answers("back") == found.production == 1
    after = models.version("back", 1)
    assert before is not None
    assert after is not None
    assert after.since_ns == before.since_ns  # READY since then
    lost = refused(models.stub.RollBack, pb.RollBackRequest(name="back", expected_version=2, **WHY))
    assert lost == (grpc.StatusCode.ABORTED, "back@production: expected version 2, it is 1")


def test_there_is_nothing_to_roll_back_to_before_the_first_change(models: ModelsOf) -> None:
    models.package("first")
    code, _ = refused(models.stub.RollBack, pb.RollBackRequest(name="first", expected_version=1, **WHY))
    assert code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_change_in_the_repository_is_followed_and_journaled(models: ModelsOf) -> None:
    models.package("followed")
    models.load("followed", 2)
    watch = models.stub.WatchModels(pb.WatchModelsRequest(name="followed"), timeout=CALL_S)
    assert next(watch).models.aliases[0].production == 1
    change_alias(models.repository / "followed", "production", 2, expected=1, reason="by hand", who="ann")
    (change,) = next(watch).changes
    assert (change.aliases.production, change.aliases.changes[-1].who) == (2, "ann")
    assert models.answers("followed") == 2
    assert controls(models)[-1]["reason"] == "by hand"
    watch.cancel()


# -- canary, shadow ----------------------------------------------------------------------------------------------------


def test_a_canary_answers_for_its_share_of_the_symbols_until_it_is_taken_away(models: ModelsOf) -> None:
    models.package("share")
    request = pb.SetCanaryRequest(name="share", version=2, share_percent=100.0, **WHY)
    found = models.stub.SetCanary(request, timeout=CALL_S).aliases
    assert (found.canary, found.canary_percent) == (2, 100.0)
    assert models.answers("share") == 2
    moved = pb.SetAliasRequest(name="share", alias=pb.MODEL_ALIAS_CANARY, version=1, expected_version=2, **WHY)
    found = models.stub.SetAlias(moved, timeout=CALL_S).aliases
    assert (found.canary, found.canary_percent) == (1, 100.0)  # the share stays
    ended = pb.SetCanaryRequest(name="share", expected_version=1, **WHY)
    assert models.stub.SetCanary(ended, timeout=CALL_S).aliases.canary == 0
    assert models.answers("share") == 1


def test_a_shadow_is_named_and_taken_away_and_never_answers(models: ModelsOf) -> None:
    models.package("dark")
    found = models.stub.SetShadow(pb.SetShadowRequest(name="dark", version=2, **WHY), timeout=CALL_S).aliases
    assert (found.shadow, found.production) == (2, 1)
    assert models.answers("dark") == 1
    lost = refused(models.stub.SetShadow, pb.SetShadowRequest(name="dark", version=1, **WHY))
    assert lost == (grpc.StatusCode.ABORTED, "dark@shadow: expected version none, it is 2")
    ended = pb.SetShadowRequest(name="dark", expected_version=2, **WHY)
    assert models.stub.SetShadow(ended, timeout=CALL_S).aliases.shadow == 0


# -- states ------------------------------------------------------------------------------------------------------------


class Watched:
    """What a watch tells, one change at a time."""

    def __init__(self, models: ModelsOf, name: str) -> None:
        self._call = models.stub.WatchModels(pb.WatchModelsRequest(name=name), timeout=CALL_S)
        self.first = next(self._call).models
        self._changes: list[pb.ModelChange] = []

    def states(self, version: int, count: int) -> list[str]:
        """The next states of a version."""
        found: list[str] = []
        while len(found) < count:
            if not self._changes:
                self._changes = list(next(self._call).changes)
            change = self._changes.pop(0)
            if change.HasField("version") and change.version.version == version:
                found.append(pb.ModelState.Name(change.version.state).removeprefix("MODEL_STATE_"))
        return found

    def close(self) -> None:
        self._call.cancel()


def test_a_watch_tells_the_states_of_a_version_in_order(models: ModelsOf) -> None:
    models.package("seen", versions=3)
    (models.repository / "seen" / "3" / MODEL_FILE).write_bytes(b"other")
    watch = Watched(models, "seen")
    assert [(one.version, one.state) for one in watch.first.versions] == [(1, pb.MODEL_STATE_READY)]
    assert models.load("seen", 2).state == pb.MODEL_STATE_READY
    assert watch.states(2, 3) == ["START", "LOADING", "READY"]
    models.unload("seen", 2)
    assert watch.states(2, 2) == ["UNLOADING", "UNLOADED"]
    assert models.version("seen", 2) is None
    code, _ = refused(models.stub.LoadModel, pb.LoadModelRequest(name="seen", version=3, **WHY))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert watch.states(3, 3) == ["START", "LOADING", "FAILED"]
    watch.close()


def test_a_load_goes_on_though_its_caller_has_gone(models: ModelsOf) -> None:
    models.package("alone")
    watch = Watched(models, "alone")
    call = models.stub.LoadModel.future(pb.LoadModelRequest(name="alone", version=2, **WHY), timeout=CALL_S)
    assert watch.states(2, 1) == ["START"]
    call.cancel()
    assert watch.states(2, 2) == ["LOADING", "READY"]
    assert models.load("alone", 2).state == pb.MODEL_STATE_READY
    watch.close()


def test_a_version_that_answers_is_unloaded_only_by_force_and_health_tells(models: ModelsOf) -> None:
    models.package("sick", versions=1)
    stub = health_pb2_grpc.HealthStub(models.server.channel)
    health = stub.Watch(health_pb2.HealthCheckRequest(service="sick"), timeout=CALL_S)
    statuses = health_pb2.HealthCheckResponse
    assert next(health).status == statuses.SERVING
    code, message = refused(models.stub.UnloadModel, pb.UnloadModelRequest(name="sick", version=1, **WHY))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "sick@production" in message
    models.unload("sick", 1, force=True)
    assert next(health).status == statuses.NOT_SERVING
    refusal = models.server.refusal(tick("A", 1, trade=(1.0, 1.0), model="sick"))
    assert refusal[0] is grpc.StatusCode.FAILED_PRECONDITION
    whole = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S).status
    assert whole == statuses.SERVING  # the others do
    models.load("sick", 1)
    assert next(health).status == statuses.SERVING
    assert models.answers("sick") == 1
    health.cancel()


def test_health_comes_to_know_a_model_that_was_published_while_the_server_ran(models: ModelsOf) -> None:
    stub = health_pb2_grpc.HealthStub(models.server.channel)
    health = stub.Watch(health_pb2.HealthCheckRequest(service="late"), timeout=CALL_S)
    assert next(health).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    models.package("late", versions=1)
    seen = [next(health).status]
    while seen[-1] != health_pb2.HealthCheckResponse.SERVING:
        seen.append(next(health).status)
    assert set(seen[:-1]) <= {health_pb2.HealthCheckResponse.NOT_SERVING}
    health.cancel()


def test_a_watch_ends_ok_when_the_server_drains(models: ModelsOf) -> None:
    """The last test of its server."""
    watch = models.stub.WatchModels(pb.WatchModelsRequest(name="tiny"), timeout=CALL_S)
    assert next(watch).HasField("models")
    assert models.server.process.stop() == 0
    assert list(watch) == []
    assert watch.code() is grpc.StatusCode.OK
