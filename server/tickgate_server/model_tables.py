"""What `tickgate models` prints of a server: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from tickgate.v1 import (
    AliasChange,
    InferenceEngine,
    ListModelsResponse,
    ModelAlias,
    ModelAliases,
    ModelState,
    ModelVersionStatus,
    PromotionRule,
    WatchModelsResponse,
)
from tickgate_server.models.aliases import Aliases
from tickgate_server.models.promotion import RuleResult
from tickgate_server.rpc.admin_client import Worker
from tickgate_server.rpc.model_messages import aliases_message, rule_message

NOTHING = "-"
# What protobuf's JSON has as text, because JavaScript has no such integers.
_INTEGERS = {
    "version",
    "production",
    "serving",
    "shadow",
    "canary",
    "previous",
    "revision",
    "before",
    "after",
    "since_ns",
    "at_ns",
    "created_ns",
}


# -- a server's --------------------------------------------------------------------------------------------------------


def show_models(console: Console, found: Sequence[tuple[Worker, ListModelsResponse]]) -> None:
    """Every version of every worker, and the last change of each model's aliases."""
    several = len(found) > 1
    table = table_of(
        *("model", "version", "state", "aliases", "engine", "p99 us", "verdict", "since", "why"),
        *(["worker"] if several else []),
        right={"version", "p99 us", "worker"},
    )
    rows = [(one, worker, response) for worker, response in found for one in response.versions]
    for one, worker, response in sorted(rows, key=lambda row: (row[0].name, row[0].version, row[1].index)):
        aliases = next((aliases for aliases in response.aliases if aliases.name == one.name), ModelAliases())
        table.add_row(*_cells(one, aliases), *([str(worker.index)] if several else []))
    console.print(table)
    for line in dict.fromkeys(_last_change(aliases) for _, response in found for aliases in response.aliases):
        if line:
            say(console, line)


def models_json(found: Sequence[tuple[Worker, ListModelsResponse]]) -> str:
    """The same, of every worker."""
    workers = [{"worker": worker.index, "address": worker.address, **tree(response)} for worker, response in found]
    return json.dumps({"workers": workers}, indent=2)


def watch_lines(worker: Worker, response: WatchModelsResponse, *, several: bool) -> list[str]:
    """What a message of a watch says, a line each."""
    now = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
    before = f"{now}  worker {worker.index}  " if several else f"{now}  "
    versions = [*response.models.versions, *(one.version for one in response.changes if one.HasField("version"))]
    lines = []
    if response.HasField("models"):
        lines = [_version_line(one) for one in versions]
        lines += [_aliases_line(one) for one in response.models.aliases]
    for change in response.changes:
        lines.append(_version_line(change.version) if change.HasField("version") else _aliases_line(change.aliases))
    return [before + line for line in lines]


def watch_json(worker: Worker, response: WatchModelsResponse) -> str:
    """The same on one line."""
    return json.dumps({"worker": worker.index, "address": worker.address, **tree(response)})


def _cells(one: ModelVersionStatus, aliases: ModelAliases) -> list[str]:
    named = [_alias(alias, aliases) for alias in one.aliases]
    facts = one.facts
    loaded = one.HasField("facts")
    engine = InferenceEngine.Name(facts.engine).removeprefix("INFERENCE_ENGINE_").lower().replace("_", " ")
    verdict = "none"
    if facts.HasField("verdict"):
        failing = [check.name for check in facts.verdict.checks if check.required and not check.passed]
        verdict = verdict_cell(facts.verdict.passed, failing, facts.verdict.override_who)
    return [
        one.name,
        str(one.version),
        _state(one),
        ", ".join(named) or NOTHING,
        engine if loaded else NOTHING,
        f"{facts.warm_up_us_p99:.1f}" if loaded else NOTHING,
        verdict if loaded else NOTHING,
        _time(one.since_ns),
        one.reason or facts.not_compiled,
    ]


def verdict_cell(passed: bool, failing: Sequence[str], who: str) -> str:  # noqa: FBT001 - the verdict's own
    """Training's verdict, in few words.

    Args:
        passed: It did.
        failing: Checks that promotion needs and that did not pass.
        who: Overrode it; empty: nobody.
    """
    if passed:
        return "passed"
    told = f"fails {', '.join(failing)}" if failing else "not passed"
    return f"{told}; overridden by {who}" if who else told


def _alias(alias: ModelAlias.ValueType, aliases: ModelAliases) -> str:
    name = ModelAlias.Name(alias).removeprefix("MODEL_ALIAS_").lower()
    if alias == ModelAlias.MODEL_ALIAS_CANARY:
        return f"{name} {aliases.canary_percent:g} %"
    return f"{name} (implied)" if alias == ModelAlias.MODEL_ALIAS_PRODUCTION and aliases.implied else name


def _state(one: ModelVersionStatus) -> str:
    return ModelState.Name(one.state).removeprefix("MODEL_STATE_")


def _version_line(one: ModelVersionStatus) -> str:
    return f"{one.name}:{one.version}  {_state(one)}{f'  {one.reason}' if one.reason else ''}"


def _aliases_line(aliases: ModelAliases) -> str:
    canary = f"{aliases.canary} {aliases.canary_percent:g} %" if aliases.canary else "none"
    implied = " (implied)" if aliases.implied else ""
    return (
        f"{aliases.name}  production {aliases.production or 'none'}{implied}  shadow {aliases.shadow or 'none'}"
        f"  canary {canary}{_why(aliases)}"
    )


def _why(aliases: ModelAliases) -> str:
    return f"  {change_text(aliases.changes[-1])}" if aliases.changes else ""


def _last_change(aliases: ModelAliases) -> str:
    return f"{aliases.name}: {change_text(aliases.changes[-1])}" if aliases.changes else ""


def change_text(change: AliasChange) -> str:
    """One change of an alias, for people."""
    alias = ModelAlias.Name(change.alias).removeprefix("MODEL_ALIAS_").lower()
    override = f"; overridden: {change.override}" if change.override else ""
    share = f" for {change.share_percent:g} %" if change.share_percent else ""
    return (
        f"{alias} {change.before or 'none'} -> {change.after or 'none'}{share} at {_time(change.at_ns)}"
        f" by {change.who}: {change.reason}{override}"
    )


# -- promotion ---------------------------------------------------------------------------------------------------------


def show_rules(console: Console, rules: Iterable[PromotionRule]) -> None:
    """Each rule of a promotion and what it found."""
    table = table_of("rule", "passed", "value", "limit", "needed", "what", right={"value", "limit"})
    for one in rules:
        value, limit = (number(getattr(one, name)) if one.HasField(name) else NOTHING for name in ("value", "limit"))
        passed, needed = ("yes" if one.passed else "no"), ("yes" if one.required else "no")
        table.add_row(one.name, passed, value, limit, needed, one.why)
    console.print(table)


def changed_tree(aliases: ModelAliases, rules: Iterable[PromotionRule]) -> dict[str, Any]:
    """Aliases since a change, and the rules of a promotion, for JSON."""
    return {"aliases": tree(aliases), "rules": [tree(rule) for rule in rules]}


def rules_of(results: Iterable[RuleResult]) -> list[PromotionRule]:
    """As a server tells them."""
    return [rule_message(one) for one in results]


def aliases_of(name: str, aliases: Aliases) -> ModelAliases:
    """As a server tells them that has loaded what they name."""
    return aliases_message(name, aliases, aliases.production)


# -- pieces ------------------------------------------------------------------------------------------------------------


def tree(message: Message) -> dict[str, Any]:
    """A message for JSON, its integers as numbers."""
    found = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {key: _plain(key, value) for key, value in found.items()}


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _plain(inner, one) for inner, one in value.items()}
    if isinstance(value, list):
        return [_plain(key, one) for one in value]
    return int(value) if key in _INTEGERS and isinstance(value, str) else value


def number(value: float | None) -> str:
    """A figure; None: there is none."""
    return NOTHING if value is None else f"{value:.6g}"


def _time(since_epoch_ns: int) -> str:
    return datetime.fromtimestamp(since_epoch_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S") if since_epoch_ns else ""


def say(console: Console, text: str) -> None:
    """A line as it is: no markup in what people gave as a reason."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def table_of(*columns: str, right: set[str] | None = None) -> Table:
    """An empty table; figures stand on the right."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in (right or set()) else "left")
    return table
