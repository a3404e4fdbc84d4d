"""The configuration of retraining: a training run, and under `[retrain]` what is done with newer data and when.

    training = "btc.toml"          # a file of `tickgate train`, beside this one; or its keys in a table [training]

    [retrain]
    state = "retrain/btc"
    evaluation_length = 2000
    promotion = "rule"

    [retrain.journal]
    folders = ["journal"]

    [[retrain.challengers]]
    kind = "refit"

An unknown key is an error.
"""

import tomllib
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from tickgate_training.config import TrainingConfig, load_config, parse_config
from tickgate_training.data.config import DataConfig, Symbol
from tickgate_training.errors import ConfigInvalid
from tickgate_training.learners import LightGBMConfig, SgdLogisticConfig
from tickgate_training.retraining.paired import BLOCKS_LEAST
from tickgate_training.strict import Strict

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


class JournalData(Strict):
    """Journals of a server and its workers; `symbols` are those wanted, none named: all."""

    folders: tuple[Path, ...] = Field(min_length=1)
    symbols: tuple[Symbol, ...] = ()


class RefitChallenger(Strict):
    """Every learner of the training configuration fitted anew; `train_length` shortens the window to its newest part.

    A short window forgets faster: after a turn of the market it is the first that knows nothing else.
    """

    kind: Literal["refit"] = "refit"
    train_length: int | None = Field(default=None, ge=1)


class ContinuedChallenger(Strict):
    """The champion's LightGBM with `learner.trees` more trees, fitted on rows newer than those it was fitted on.

    Where the champion has `trees_maximum` or would get more, it is left out, and so it is where its source is not kept:
    only what retraining has published itself can be continued.
    """

    kind: Literal["continued"] = "continued"
    learner: LightGBMConfig = LightGBMConfig(trees=20)
    trees_maximum: int = Field(default=2000, ge=1)


class PartialFitChallenger(Strict):
    """A logistic regression that goes on learning from round to round by stochastic gradient descent.

    It is fitted once on a whole window, and updated by one pass over the rows that are newer from then on.
    """

    kind: Literal["partial_fit"] = "partial_fit"
    learner: SgdLogisticConfig = SgdLogisticConfig(averaged=False)

    @field_validator("learner")
    @classmethod
    def _not_averaged(cls, learner: SgdLogisticConfig) -> SgdLogisticConfig:
        if learner.averaged:
            raise ValueError("averaged must be false: a mean over all steps since the first adapts ever more slowly")
        return learner


ChallengerConfig = Annotated[RefitChallenger | ContinuedChallenger | PartialFitChallenger, Field(discriminator="kind")]


class RuleConfig(Strict):
    """When a challenger takes over by rule, beside a verdict that passed; see `retraining.decision`.

    `p_value` is the most that the paired test may give: about the share of rounds in which a challenger that is no
    better takes over all the same. `margin`: by how much of the champion's Sharpe ratio it must be above it. With fewer
    than `blocks_minimum` returns that do not overlap the test says nothing.
    """

    p_value: float = Field(default=0.01, gt=0.0, le=0.5)
    margin: float = Field(default=0.2, ge=0.0, lt=1.0)
    blocks_minimum: int = Field(default=20, ge=BLOCKS_LEAST)


class ScheduleConfig(Strict):
    """When rounds are due with `--schedule`: every so many seconds, or at times of the day in UTC."""

    every_s: float | None = Field(default=None, gt=0.0)
    at: tuple[time, ...] = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.every_s is None) == (not self.at):
            raise ValueError("give either every_s or at")
        if any(one.tzinfo is not None for one in self.at):
            raise ValueError("at is in UTC: times without an offset")
        return self


class TriggerConfig(Strict):
    """What begins a round before it is due; looked at every `poll_s` seconds, drift every `again_s`.

    `on_degraded`: the journal says that the champion is degraded; where a round cannot follow, as too little is new, it
    is tried again after `again_s`. `on_drift`: of the newest `drift_rows` rows a feature's population stability index
    is above both `drift_least` and its null quantile; see `retraining.drift`.
    """

    on_degraded: bool = True
    on_drift: bool = False
    poll_s: float = Field(default=5.0, gt=0.0)
    again_s: float = Field(default=600.0, gt=0.0)
    drift_rows: int = Field(default=2000, ge=100)
    drift_least: float = Field(default=0.2, ge=0.0)


class RetrainSection(Strict):
    """What is retrained, on what, by which rule, and when.

    Attributes:
        state: Folder of rounds, of what they keep, and of the lock.
        repository: Where champion and challengers are; None: the training configuration's.
        name: Of the model; None: likewise.
        sources: Of data, oldest first; paths may have `*`, `?` and `[...]`, looked up in every round, and a folder's
            files are taken by name. Of a symbol each source counts from behind the last stamp of those before.
        journal: Newer still; None: none. Neither this nor `sources`: the training configuration's data.
        rows_maximum: Trades that are kept in memory, the newest; of the journal, and of all together.
        train_length: Of the rolled window, in the unit of the training configuration's walk-forward (rows or
            sessions); None: as there. Likewise `validation_length`.
        evaluation_length: Of the newest block, that no challenger is fitted on; None: the walk-forward's test block.
        challengers: What is tried.
        promotion: `rule`: a challenger that passes takes over; `hand`: it becomes the shadow, and a person promotes.
        publish: `always`, or only a challenger that earned more than the champion on the evaluation block.
        rule: For promotion.
        schedule: None: rounds are begun by hand alone.
        triggers: See there.
    """

    state: Path
    repository: Path | None = None
    name: str | None = Field(default=None, pattern=_NAME)
    sources: tuple[DataConfig, ...] = ()
    journal: JournalData | None = None
    rows_maximum: int = Field(default=1_000_000, ge=1000)
    train_length: int | None = Field(default=None, ge=1)
    validation_length: int | None = Field(default=None, ge=1)
    evaluation_length: int | None = Field(default=None, ge=1)
    challengers: tuple[ChallengerConfig, ...] = Field(default=(RefitChallenger(),), min_length=1)
    promotion: Literal["rule", "hand"] = "hand"
    publish: Literal["always", "when_better"] = "always"
    rule: RuleConfig = RuleConfig()
    schedule: ScheduleConfig | None = None
    triggers: TriggerConfig = TriggerConfig()


class RetrainConfig(Strict):
    """Both parts; `training.package` is what `retrain.repository` and `retrain.name` made of it."""

    training: TrainingConfig
    retrain: RetrainSection

    @property
    def model_folder(self) -> Path:
        """`<repository>/<name>`."""
        return self.training.package.repository / self.training.package.name


def load_retrain_config(path: Path) -> RetrainConfig:
    """Read a configuration from TOML.

    Raises:
        ConfigInvalid: The file, or the training configuration that it names, cannot be read, is not TOML, has an
            unknown key, lacks one, or has a value out of range; each key at fault is named.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid(str(path), (f"cannot be read ({error})",)) from error
    return parse_retrain_config(document, str(path), path.parent)


def parse_retrain_config(
    document: Mapping[str, Any], source: str = "configuration", folder: Path = Path()
) -> RetrainConfig:
    """Validate a configuration that is already a mapping; errors as in `load_retrain_config`.

    Args:
        document: Keys `training`, a table or the path of a file, and `retrain`.
        source: What errors call it.
        folder: What a path of `training` is relative to.
    """
    given = document.get("training")
    if isinstance(given, str):
        training = load_config(folder / given)
    elif isinstance(given, Mapping):
        training = parse_config(given, f"{source}, training")
    else:
        raise ConfigInvalid(source, ("training: a table, or the path of a training configuration, is needed",))
    unknown = sorted(set(document) - {"training", "retrain"})
    if unknown:
        raise ConfigInvalid(source, tuple(f"{key}: unknown; known are training and retrain" for key in unknown))
    try:
        section = RetrainSection.model_validate(document.get("retrain", {}))
    except ValidationError as error:
        problems = (f"{'.'.join(('retrain', *map(str, one['loc'])))}: {one['msg']}" for one in error.errors())
        raise ConfigInvalid(source, tuple(problems)) from error
    package = training.package.model_copy(
        update={
            key: value
            for key, value in (("repository", section.repository), ("name", section.name))
            if value is not None
        }
    )
    return RetrainConfig(training=training.model_copy(update={"package": package}), retrain=section)
