"""One round: read newer data, fit challengers, hold the best against the champion, publish it, let it take over or not.

What a round changes, in this order, each of it whole or not at all: the challengers' sources in its own state; the
alias production, named where it was only implied, so that a version that is published does not serve by being the
highest; the new version; the alias shadow; the alias production, if the challenger passes and the rule may promote;
the round's line. A process that dies in between leaves what serves as it was: at worst a version that nobody serves,
and the next round goes on. Every change of an alias is a compare-and-swap against what the round began with.
"""

import math
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import structlog

from tickgate_server.journal.errors import JournalError
from tickgate_server.models import aliases
from tickgate_server.models.errors import AliasConflict, AliasError, ModelError
from tickgate_training import leak_check
from tickgate_training.errors import TrainingError
from tickgate_training.publishing import Published, publish_model
from tickgate_training.retraining.challengers import Challenger, Challengers, best
from tickgate_training.retraining.comparison import Comparison, Scored, compare, read_champion
from tickgate_training.retraining.config import RefitChallenger, RetrainConfig
from tickgate_training.retraining.decision import decide
from tickgate_training.retraining.drift import null_quantiles
from tickgate_training.retraining.errors import NothingNew, RetrainStopped
from tickgate_training.retraining.newest import Newest, blocks, read_newest
from tickgate_training.retraining.rounds import (
    BlockSaid,
    DataSaid,
    Outcome,
    RoundLine,
    Rounds,
    ScoredSaid,
    TestSaid,
    TriedSaid,
    TriggerSaid,
    UnderWay,
    WindowSaid,
)
from tickgate_training.retraining.serving import Serving, serving
from tickgate_training.retraining.sources import Sources
from tickgate_training.samples import Samples
from tickgate_training.splits import Block, Window

WHO = "tickgate retrain"
_REASON_BYTES = aliases.TEXT_BYTES
_LOG = structlog.get_logger()


class Stage(StrEnum):
    """Steps of a round, in order; it can be stopped before each."""

    READ = "read"
    FIT = "fit"
    COMPARE = "compare"
    KEEP = "keep"
    NAME = "name"
    PUBLISH = "publish"
    SHADOW = "shadow"
    PROMOTE = "promote"
    RECORD = "record"


OnStage = Callable[[Stage], None]


class Round:
    """One round of retraining; `run` it once.

    Args:
        config: What to do.
        rounds: Those before, and where this one is written down.
        trigger: What began it.
        on_stage: Called before each step; what it raises ends the round there.
        stop: Asked before each step whether the process is to end.
    """

    def __init__(
        self,
        config: RetrainConfig,
        rounds: Rounds,
        trigger: TriggerSaid | None = None,
        *,
        on_stage: OnStage | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._rounds = rounds
        self._on_stage = on_stage
        self._stop = stop
        self._sources = Sources(rounds.folder)
        self._said: dict[str, Any] = {
            "round": rounds.next_number,
            "began_ns": time.time_ns(),
            "trigger": trigger or TriggerSaid(),
        }

    def run(self) -> RoundLine:
        """Run it to its end; what goes wrong is the round's outcome, with its reason.

        Returns:
            Its line, which is in the file by then.

        Raises:
            OSError: The line cannot be written.
        """
        decision: Outcome
        try:
            decision, reason = self._run()
        except NothingNew as error:
            decision, reason = "nothing_new", str(error)
        except RetrainStopped as error:
            decision, reason = "stopped", str(error)
        except AliasConflict as error:
            decision, reason = "conflict", str(error)
        except (TrainingError, ModelError, JournalError, OSError) as error:
            decision, reason = "failed", f"{type(error).__name__}: {error}"
        if self._on_stage is not None:
            self._on_stage(Stage.RECORD)
        line = RoundLine(**self._said, ended_ns=time.time_ns(), decision=decision, reason=reason)
        self._rounds.end(line)
        _LOG.info("round", round=line.round, decision=decision, reason=reason, published=line.published)
        return line

    def _run(self) -> tuple[Outcome, str]:
        config, said = self._config, self._said
        self._enter(Stage.READ)
        found = serving(config)
        said["champion_version"] = found.champion
        newest = read_newest(config)
        samples = newest.samples
        said["data"] = _data_said(newest)
        champion = read_champion(config.model_folder, found.champion, samples, config.training)
        window = blocks(samples, config, self._rounds.evaluated_until_ns)
        said["window"] = _window_said(samples, window)
        leak_check.check(newest.frame, config.training, samples)

        self._enter(Stage.FIT)
        self._begin(found.champion)
        fitter = Challengers(samples, config, window, self._rounds, self._sources, found.champion)
        challengers, skipped = fitter.fit()
        chosen = best(challengers)
        said |= {"skipped": tuple(skipped), "tries": len(challengers), "chosen": chosen}
        said["configuration"] = _configuration(challengers[chosen])
        said["trials"] = self._rounds.tries_against(found.champion) + len(challengers)

        self._enter(Stage.COMPARE)
        held = compare(
            champion,
            challengers,
            chosen,
            samples,
            window.test,
            config.training,
            trials=said["trials"],
            rule=config.retrain.rule,
        )
        said["champion"] = _scored_said(held.champion, found.champion)
        said["challenger"] = _scored_said(held.challenger, None)
        said["test"] = _test_said(held)
        said["verdict"] = held.verdict

        self._enter(Stage.KEEP)
        stored = [self._sources.keep(one.fitted.model) for one in challengers]
        said["challengers"] = tuple(map(_tried_said, challengers, stored))
        if config.retrain.publish == "when_better" and not held.test.mean_difference > 0.0:
            return (
                "rejected",
                f"it earned {held.test.mean_difference:.3g} a block more than the champion: not published",
            )
        return self._publish(found, challengers[chosen], held, samples)

    def _publish(
        self, found: Serving, challenger: Challenger, held: Comparison, samples: Samples
    ) -> tuple[Outcome, str]:
        config, said = self._config, self._said
        folder = config.model_folder
        self._enter(Stage.NAME)
        now = serving(config)
        if now.champion != found.champion:  # what follows would be about another champion
            raise AliasConflict(folder.name, "production", found.champion, now.champion)
        if not found.named:
            aliases.change_alias(
                folder, "production", found.champion, expected=found.champion, implied=found.champion, who=WHO,
                reason="named before a challenger is published",
            )  # fmt: skip
        self._enter(Stage.PUBLISH)
        metrics = held.challenger.metrics
        published = publish_model(challenger.fitted, samples, config.training, metrics, said["trials"], held.verdict)
        version = published.manifest.version
        said["published"] = version
        said["drift_null"] = self._drift_null(challenger, published, samples)
        said["challenger"] = _scored_said(held.challenger, version)
        decided = decide(published.manifest, held.test, config.retrain.rule)
        self._enter(Stage.SHADOW)
        reason = _cut(f"round {said['round']}: {decided.reason}")
        aliases.change_alias(folder, "shadow", version, expected=found.shadow, who=WHO, reason=reason)
        if not decided.passes:
            return "shadow", decided.reason
        if config.retrain.promotion == "hand":
            return "shadow", f"it passes, and waits for a hand: {decided.reason}"
        self._enter(Stage.PROMOTE)
        aliases.change_alias(folder, "production", version, expected=found.champion, who=WHO, reason=reason)
        try:
            aliases.change_alias(folder, "shadow", None, expected=version, who=WHO, reason="it is production now")
        except (AliasError, OSError) as error:  # it serves all the same
            _LOG.warning("shadow not cleared", model=folder.name, version=version, why=str(error))
        return "promoted", decided.reason

    def _drift_null(self, challenger: Challenger, published: Published, samples: Samples) -> dict[str, float]:
        wanted = self._config.retrain.triggers
        if not wanted.on_drift:
            return {}
        trained = published.manifest.feature_statistics
        rows = samples.features[challenger.fitted.train_rows]
        ordered = {name: trained[name] for name in samples.feature_set.features}
        return null_quantiles(ordered, rows, wanted.drift_rows, seed=self._config.training.seed)

    def _begin(self, champion: int) -> None:
        self._rounds.begin(
            UnderWay(
                round=self._said["round"],
                began_ns=self._said["began_ns"],
                trigger=self._said["trigger"],
                champion_version=champion,
                tries=_tries(self._config),
            )
        )

    def _enter(self, stage: Stage) -> None:
        if self._on_stage is not None:
            self._on_stage(stage)
        if self._stop():
            raise RetrainStopped(stage)
        _LOG.debug("step", round=self._said["round"], step=stage.value)


def _data_said(newest: Newest) -> DataSaid:
    samples = newest.samples
    return DataSaid(
        fingerprint=samples.fingerprint,
        rows=samples.rows,
        symbols=samples.symbols,
        first_ns=int(samples.stamps_ns[0]),
        last_ns=int(samples.stamps_ns[-1]),
        lost_records=newest.lost_records,
    )


def _window_said(samples: Samples, window: Window) -> WindowSaid:
    def said(block: Block) -> BlockSaid:
        stamps = samples.stamps_ns
        return BlockSaid(
            first_ns=int(stamps[block.start]), last_ns=int(stamps[block.stop - 1]), rows=block.stop - block.start
        )

    return WindowSaid(train=said(window.train), validation=said(window.validation), evaluation=said(window.test))


def _scored_said(scored: Scored, version: int | None) -> ScoredSaid:
    metrics = {name: _finite(value) for name, value in scored.metrics.items()}
    return ScoredSaid(version=version, threshold=scored.threshold, metrics=metrics)


def _test_said(held: Comparison) -> TestSaid:
    test = held.test
    return TestSaid(
        blocks=test.blocks,
        block_periods=test.block_periods,
        mean_difference=_finite(test.mean_difference),
        sharpe_challenger=_finite(test.sharpe_challenger),
        sharpe_champion=_finite(test.sharpe_champion),
        statistic=_finite(test.statistic),
        p_value=_finite(test.p_value),
        why=test.why,
    )


def _tried_said(challenger: Challenger, stored: str) -> TriedSaid:
    return TriedSaid(
        kind=challenger.kind,
        learner=challenger.fitted.configuration.learner.kind,
        validation_net_return=_finite(challenger.validation_net_return),
        stored=stored,
        fitted_until_ns=challenger.fitted_until_ns,
    )


def _tries(config: RetrainConfig) -> int:
    """Challengers that a round fits, if all can be."""
    refits = len(config.training.learners) * config.training.tuning.trials
    return sum(refits if isinstance(one, RefitChallenger) else 1 for one in config.retrain.challengers)


def _configuration(challenger: Challenger) -> dict[str, Any]:
    return challenger.fitted.configuration.learner.model_dump(mode="json", exclude={"search"})


def _finite(value: float) -> float | int | None:
    return value if math.isfinite(value) else None


def _cut(text: str) -> str:
    """As much of a reason as an alias's history has room for."""
    return text.encode()[:_REASON_BYTES].decode(errors="ignore")
