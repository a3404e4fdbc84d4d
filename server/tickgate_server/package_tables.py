"""What `tickgate models` prints of a folder of packages: what its checks found, what differs between two versions."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from tickgate_server.model_repository import CHECKS, Verified
from tickgate_server.model_tables import NOTHING, number, say, table_of, tree, verdict_cell
from tickgate_server.models.aliases import Aliases
from tickgate_server.models.difference import Fact, OutputDifference
from tickgate_server.models.verdict import PromotionVerdict, failures
from tickgate_server.rpc.model_messages import meaning, verdict_message


def show_repository(
    console: Console, found: Sequence[Verified], aliases: Mapping[str, tuple[Aliases | None, int | None]]
) -> None:
    """Every version, whether it is fit to serve, and the aliases that mean it."""
    table = table_of(
        *("model", "version", "fit", "features", "horizon", "p99 us", "why not", "aliases", "verdict"),
        right={"version", "p99 us"},
    )
    for one in found:
        named = ", ".join(_meant(one, aliases)) or NOTHING
        if one.model is None:
            table.add_row(one.name, str(one.version), "no", "", "", "", str(one.error), named, NOTHING)
            continue
        trades = one.model.horizon_trades
        table.add_row(
            one.name,
            str(one.version),
            "yes",
            one.model.schema_id,
            f"{trades} trade{'s' * (trades > 1)}",
            f"{one.model.warm_up_us_p99:.1f}",
            "",
            named,
            verdict_text(one.model.manifest.promotion),
        )
    console.print(table)


def repository_json(found: Sequence[Verified], aliases: Mapping[str, tuple[Aliases | None, int | None]]) -> str:
    """The same for programs."""
    versions = [{**_verified_tree(one), "aliases": list(_meant(one, aliases))} for one in found]
    return json.dumps({"versions": versions}, indent=2)


def verdict_text(verdict: PromotionVerdict | None) -> str:
    """Training's verdict, for people."""
    if verdict is None:
        return "none"
    override = verdict.override
    return verdict_cell(verdict.passed, failures(verdict.checks), "" if override is None else override.who)


def show_verified(console: Console, one: Verified) -> None:
    """Each check of loading, in its order, and what it found."""
    say(console, f"{one.name}:{one.version} is {'fit to serve' if one.error is None else 'not fit to serve'}")
    table = table_of("check", "passed", "found")
    failed = CHECKS.index(one.failed) if one.error is not None else len(CHECKS)
    for place, check in enumerate(CHECKS):
        if place < failed:
            table.add_row(check, "yes", _found(check, one))
        elif place == failed:
            table.add_row(check, "no", str(one.error))
        else:
            table.add_row(check, "not reached", "")
    console.print(table)


def verified_json(found: Sequence[Verified]) -> str:
    """The same for programs."""
    return json.dumps({"versions": [_verified_tree(one) for one in found]}, indent=2)


def _found(check: str, one: Verified) -> str:
    model = one.model
    if model is None:
        return ""
    engine = "compiled forest" if not model.not_compiled else f"onnxruntime: {model.not_compiled}"
    return {
        "hash": f"sha256 {model.manifest.model_sha256[:16]}",
        "schema id": f"{model.features.name} {model.schema_id}",
        "golden vectors": f"{len(model.manifest.golden.outputs)} within 1e-5",
        "warm-up": f"p99 {model.warm_up_us_p99:.1f} us, budget {model.manifest.latency_budget_ms:g} ms; {engine}",
    }.get(check, "")


def _meant(one: Verified, aliases: Mapping[str, tuple[Aliases | None, int | None]]) -> tuple[str, ...]:
    named, production = aliases[one.name]
    return meaning(named or Aliases(), production, one.version)


def _verified_tree(one: Verified) -> dict[str, Any]:
    model = one.model
    found: dict[str, Any] = {"name": one.name, "version": one.version, "fit": model is not None}
    if model is None:
        return {**found, "failed": one.failed, "why": str(one.error)}
    verdict = model.manifest.promotion
    return {
        **found,
        "schema_id": model.schema_id,
        "horizon_trades": model.horizon_trades,
        "engine": "onnxruntime" if model.not_compiled else "compiled_forest",
        "not_compiled": model.not_compiled,
        "warm_up_us_p99": model.warm_up_us_p99,
        "verdict": None if verdict is None else tree(verdict_message(verdict)),
    }


def show_difference(
    console: Console,
    name: str,
    versions: tuple[int, int],
    facts: Sequence[Fact],
    outputs: Sequence[OutputDifference],
    why_not: str,
) -> None:
    """What differs between two versions.

    Args:
        console: To print on.
        name: Of the model.
        versions: The two.
        facts: Of their manifests.
        outputs: What they answer to the same vectors.
        why_not: Why they were not asked; empty: they were.
    """
    titles = [f"{name}:{version}" for version in versions]
    table = table_of("fact", *titles, "differs", right=set(titles))
    for fact in facts:
        table.add_row(fact.name, _value(fact.first), _value(fact.second), "yes" if fact.differs else "")
    console.print(table)
    if why_not:
        say(console, why_not)
        return
    table = table_of(
        *("vectors", "rows", "mean abs", "max abs", "same direction", "same signal", "not finite"),
        right={"rows", "mean abs", "max abs", "same direction", "same signal", "not finite"},
    )
    for one in outputs:
        figures = (f"{one.mean_abs:.3g}", f"{one.max_abs:.3g}", f"{one.same_direction:.2%}", f"{one.same_signal:.2%}")
        table.add_row(one.vectors, f"{one.rows:,}", *figures, str(one.not_finite))
    console.print(table)


def difference_json(
    name: str, versions: tuple[int, int], facts: Sequence[Fact], outputs: Sequence[OutputDifference], why_not: str
) -> str:
    """The same for programs; what is no finite number is null."""
    document = {
        "name": name,
        "versions": versions,
        "facts": [{**dataclasses.asdict(fact), "differs": fact.differs} for fact in facts],
        "outputs": [{key: _known(value) for key, value in dataclasses.asdict(one).items()} for one in outputs],
        "why_not": why_not,
    }
    return json.dumps(document, indent=2)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _value(value: str | float | None) -> str:
    return number(value) if isinstance(value, float) else NOTHING if value is None else str(value)
