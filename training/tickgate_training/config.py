"""The configuration of a training run: frozen, validated once, read from TOML."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tickgate_server.features.schema import (
    FUNDAMENTAL_NAME,
    NANOSECONDS,
    TICK_SESSION_GAP_NS,
    FeatureSet,
    Fundamental,
    feature_set,
)
from tickgate_server.risk.regimes import RegimeName
from tickgate_training.calibration import Kind as CalibrationKind
from tickgate_training.data.config import BinanceData as BinanceData  # noqa: PLC0414 - callers import it from here
from tickgate_training.data.config import DailyData as DailyData  # noqa: PLC0414 - as above
from tickgate_training.data.config import DataConfig, FundamentalsData
from tickgate_training.data.config import SimulatedData as SimulatedData  # noqa: PLC0414 - as above
from tickgate_training.errors import ConfigInvalid
from tickgate_training.labels.config import FixedHorizonConfig, LabelConfig
from tickgate_training.leaks import LeakConfig
from tickgate_training.learners import LearnerConfig
from tickgate_training.meta import MetaConfig
from tickgate_training.splits.combinatorial import CombinatorialConfig
from tickgate_training.splits.config import RowWindowsConfig, WalkForwardConfig
from tickgate_training.strict import Strict
from tickgate_training.tuning import TuningConfig
from tickgate_training.verdict import PromotionLimits
from tickgate_training.weights import WeightConfig


class FundamentalConfig(Strict):
    """A fundamental as a feature, and how long after it became known it counts; just as old is not too old."""

    name: str = Field(pattern=FUNDAMENTAL_NAME)
    maximum_age_s: int = Field(ge=0, le=9_000_000_000)


class FeatureConfig(Strict):
    """The feature set and its parameters: silence after which windows start anew, 0 for daily bars; fundamentals."""

    feature_set: Literal["micro10", "micro32", "micro10+fundamentals", "micro32+fundamentals"] = "micro10"
    session_gap_ns: int = Field(default=TICK_SESSION_GAP_NS, ge=0)
    fundamentals: tuple[FundamentalConfig, ...] = ()

    @model_validator(mode="after")
    def _is_a_set(self) -> Self:
        self.as_set()
        return self

    def as_set(self) -> FeatureSet:
        """The set with these parameters."""
        fundamentals = [Fundamental(found.name, found.maximum_age_s * NANOSECONDS) for found in self.fundamentals]
        return feature_set(self.feature_set, self.session_gap_ns, fundamentals)


class CostConfig(Strict):
    """Costs of trading in basis points of notional; `half_spread_bps` counts where a row has no quote."""

    fee_bps: float = Field(default=0.0, ge=0.0)
    half_spread_bps: float = Field(default=1.0, ge=0.0)
    impact: float = Field(default=0.0, ge=0.0)


class PolicyConfig(Strict):
    """Sizes and threshold; see `backtest` and `threshold`."""

    capital: float = Field(default=1_000_000.0, gt=0.0)
    risk_budget: float = Field(default=100_000.0, gt=0.0)
    volatility_floor: float = Field(default=1e-4, gt=0.0)
    lot: float = Field(default=1e-8, gt=0.0)
    decide_every_rows: int = Field(default=1, ge=1)
    round_trips_minimum: int = Field(default=5, ge=1)


class PackageConfig(Strict):
    """Where and as what the final model is published."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    repository: Path = Path("models")
    latency_budget_ms: float = Field(default=50.0, gt=0.0)
    allowed_regimes: tuple[RegimeName, ...] = ("normal", "trending")


class TrainingConfig(Strict):
    """One run: where the data come from, how they are labelled, split, fitted, traded and published.

    `fundamentals`: the file of those that the feature set has, none where it has none.
    `periods_per_year` annualises the Sharpe ratio: 252 for daily bars; 1 leaves it a row's. `calendar` says which rows
    are one session: `24/7`, or a calendar of `exchange_calendars`. `combinatorial`: cross-validation beside the walk.
    `meta`: a rule that says the side, so that what is learned is whether to act on it.
    `runs`: where runs keep their folders.
    """

    data: DataConfig
    package: PackageConfig
    learners: tuple[LearnerConfig, ...] = Field(min_length=1)
    features: FeatureConfig = FeatureConfig()
    fundamentals: FundamentalsData | None = None
    label: LabelConfig = FixedHorizonConfig()
    meta: MetaConfig | None = None
    weights: WeightConfig = WeightConfig(basis="equal")
    walk_forward: WalkForwardConfig = RowWindowsConfig()
    combinatorial: CombinatorialConfig | None = None
    calendar: str = "24/7"
    calibration: CalibrationKind = "platt"
    tuning: TuningConfig = TuningConfig()
    leaks: LeakConfig = LeakConfig()
    promotion: PromotionLimits = PromotionLimits()
    costs: CostConfig = CostConfig()
    policy: PolicyConfig = PolicyConfig()
    periods_per_year: float = Field(default=1.0, gt=0.0)
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    runs: Path = Path("runs")

    @model_validator(mode="after")
    def _fundamentals_go_together(self) -> Self:
        if (self.fundamentals is None) != (not self.features.fundamentals):
            raise ValueError(
                "a [fundamentals] file goes with a feature set that has fundamentals: expected both, or none"
            )
        return self


def load_config(
    path: Path,
    *,
    data: str | None = None,
    models: Path | None = None,
    name: str | None = None,
    runs: Path | None = None,
) -> TrainingConfig:
    """Read a configuration from TOML.

    Args:
        path: The file.
        data: Put in place of the file's own data: a capture's path, or the name of a set of daily bars.
        models: Put in place of the file's model repository.
        name: Put in place of the file's name of the model.
        runs: Put in place of the file's folder of runs.

    Raises:
        ConfigInvalid: The file cannot be read, is not TOML, has an unknown key, lacks one, or has a value out of range;
            each key at fault is named.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid(str(path), (f"cannot be read ({error})",)) from error
    if data is not None:
        document["data"] = _with_data(str(path), document.get("data"), data)
    package = document.setdefault("package", {})
    if isinstance(package, dict):
        package |= {} if models is None else {"repository": str(models)}
        package |= {} if name is None else {"name": name}
    document |= {} if runs is None else {"runs": str(runs)}
    return parse_config(document, str(path))


def parse_config(document: Mapping[str, Any], source: str = "configuration") -> TrainingConfig:
    """Validate a configuration that is already a mapping; errors as in `load_config`."""
    try:
        return TrainingConfig.model_validate(document)
    except ValidationError as error:
        problems = tuple(
            f"{'.'.join(map(str, problem['loc'])) or 'top level'}: {problem['msg']}" for problem in error.errors()
        )
        raise ConfigInvalid(source, problems) from error


def _with_data(path: str, section: Any, data: str) -> dict[str, Any]:
    kind = section.get("kind") if isinstance(section, dict) else None
    key = {"binance": "path", "daily": "source", "panel": "source"}.get(kind or "")
    if key is None:
        raise ConfigInvalid(
            path, (f"data.kind is {kind!r}: only binance, daily and panel data can be named from outside",)
        )
    return {**section, key: data}
