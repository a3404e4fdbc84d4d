"""Versions, aliases and rules as the contract has them."""

from types import MappingProxyType

from tickgate.v1 import model_pb2 as pb
from tickgate.v1 import signal_pb2
from tickgate_server.models.aliases import Aliases, AliasName
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.promotion import RuleResult
from tickgate_server.models.verdict import CHECKS, PromotionVerdict

ALIASES: MappingProxyType[AliasName, pb.ModelAlias.ValueType] = MappingProxyType(
    {
        "production": pb.MODEL_ALIAS_PRODUCTION,
        "shadow": pb.MODEL_ALIAS_SHADOW,
        "canary": pb.MODEL_ALIAS_CANARY,
    }
)


def alias_name(number: int) -> AliasName:
    """The alias of a number of the contract; raises `ValueError` where it is none."""
    for name, known in ALIASES.items():
        if known == number:
            return name
    raise ValueError(number)


def facts_message(loaded: LoadedModel) -> pb.ModelFacts:
    """What is known of a loaded version."""
    compiled = not loaded.not_compiled
    verdict = loaded.manifest.promotion
    return pb.ModelFacts(
        schema_id=loaded.schema_id,
        engine=signal_pb2.INFERENCE_ENGINE_COMPILED_FOREST if compiled else signal_pb2.INFERENCE_ENGINE_ONNXRUNTIME,
        not_compiled=loaded.not_compiled,
        warm_up_us_p99=loaded.warm_up_us_p99,
        own_thread=loaded.slow_session is not None,
        horizon_trades=loaded.horizon_trades,
        created_ns=round(loaded.manifest.created.timestamp() * 1e9),
        verdict=None if verdict is None else verdict_message(verdict),
    )


def verdict_message(verdict: PromotionVerdict) -> pb.PromotionVerdict:
    """Training's verdict."""
    override = verdict.override
    return pb.PromotionVerdict(
        passed=verdict.passed,
        trials=verdict.trials,
        checks=[
            pb.PromotionRule(
                name=check.name.value,
                passed=check.passed,
                required=CHECKS[check.name].required,
                value=check.value,
                limit=check.limit,
                why=check.why,
            )
            for check in verdict.checks
        ],
        override_reason="" if override is None else override.reason,
        override_who="" if override is None else override.who,
    )


def rule_message(rule: RuleResult) -> pb.PromotionRule:
    """One rule and what was found."""
    return pb.PromotionRule(
        name=rule.name,
        passed=rule.passed,
        required=rule.required,
        value=rule.value,
        limit=rule.limit,
        why=rule.why,
    )


def aliases_message(name: str, aliases: Aliases, serving: int | None) -> pb.ModelAliases:
    """The aliases of one model.

    Args:
        name: Of the model.
        aliases: As the repository names them.
        serving: What the bare name means to requests; None: nothing.
    """
    canary = aliases.canary
    return pb.ModelAliases(
        name=name,
        production=aliases.production or serving or 0,
        implied=aliases.production is None and serving is not None,
        shadow=aliases.shadow or 0,
        canary=0 if canary is None else canary.version,
        canary_percent=0.0 if canary is None else canary.share_percent,
        previous=aliases.previous or 0,
        revision=aliases.revision,
        changes=[
            pb.AliasChange(
                revision=change.revision,
                at_ns=change.at_ns,
                alias=ALIASES[change.alias],
                before=change.before or 0,
                after=change.after or 0,
                who=change.who,
                reason=change.reason,
                override=change.override,
                share_percent=change.share_percent,
            )
            for change in aliases.changes
        ],
        serving=serving or 0,
    )


def meaning(aliases: Aliases, production: int | None, version: int) -> tuple[AliasName, ...]:
    """The aliases that mean a version.

    Args:
        aliases: As the repository names them.
        production: What production means, named or not; None: nothing.
        version: That they are to mean.
    """
    versions: dict[AliasName, int | None] = {
        "production": production,
        "shadow": aliases.shadow,
        "canary": None if aliases.canary is None else aliases.canary.version,
    }
    return tuple(alias for alias, found in versions.items() if found == version)
