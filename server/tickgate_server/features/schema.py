"""What a feature set is: named features in order, with parameters, and the schema id that models are held to."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

NANOSECONDS = 1_000_000_000
TICK_SESSION_GAP_NS = 300 * NANOSECONDS
FUNDAMENTALS_LIMIT = 16
"""Most fundamentals of a set: so wide is what the journal's record has room for beside `micro32`."""
FUNDAMENTAL_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,47}$"
_FUNDAMENTALS_VERSION = 1
_WITH_FUNDAMENTALS = "+fundamentals"


@dataclass(frozen=True, slots=True)
class Fundamental:
    """A slow value of a symbol as a feature.

    Attributes:
        name: As the table of fundamentals has it.
        maximum_age_ns: How long after its as-of time a value counts; just as old is not too old.
    """

    name: str
    maximum_age_ns: int


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """An ordered list of named features and the parameters they are computed with.

    Attributes:
        name: Name of the set, `micro10` for example.
        features: Names, in the order of the vector.
        session_gap_ns: Silence after which the windows start anew, in nanoseconds; 0: never (daily bars).
        kernel_version: Raised with every change of what a kernel computes.
        warm_up_trades: Trades from the windows' start until the vector is defined, the current one included.
        fundamentals: Those behind the features of ticks, whose names `features` ends with.
    """

    name: str
    features: tuple[str, ...]
    session_gap_ns: int
    kernel_version: int
    warm_up_trades: int
    fundamentals: tuple[Fundamental, ...] = ()

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.features)

    @property
    def of_ticks(self) -> "FeatureSet":
        """The set without its fundamentals: what the kernels compute from ticks alone."""
        if not self.fundamentals:
            return self
        features = self.features[: self.width - len(self.fundamentals)]
        return replace(self, name=self.name.removesuffix(_WITH_FUNDAMENTALS), features=features, fundamentals=())

    @property
    def dtype(self) -> str:
        """Type of each value of the vector."""
        return "float32"

    @property
    def schema_id(self) -> str:
        """Hash of names, order, parameters, dtype and kernel version, with the set's name before it."""
        definition: dict[str, object] = {
            "dtype": self.dtype,
            "features": self.features,
            "kernel_version": self.kernel_version,
            "name": self.name,
            "session_gap_ns": self.session_gap_ns,
            "warm_up_trades": self.warm_up_trades,
        }
        if self.fundamentals:
            definition["fundamentals"] = [[found.name, found.maximum_age_ns] for found in self.fundamentals]
            definition["fundamentals_version"] = _FUNDAMENTALS_VERSION
        canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"))
        return f"{self.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


class FeatureSetUnknown(Exception):
    """No kernel computes a feature set of that name.

    Attributes:
        name: The set asked for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no feature set {name!r}; known: {', '.join(FEATURE_SETS)}, each also with {_WITH_FUNDAMENTALS} behind"
        )
        self.name = name


MICRO10_FEATURES = (
    "ret_1",
    "ret_5",
    "ret_10",
    "vwap_dev",
    "vol_10",
    "flow_imbalance",
    "tick_sign",
    "gap_s",
    "range_10",
    "volume_z",
)


def _require_gap(session_gap_ns: int) -> None:
    if session_gap_ns < 0:
        raise ValueError(f"session_gap_ns must be >= 0 (0: never), got {session_gap_ns}")


def micro10(session_gap_ns: int = TICK_SESSION_GAP_NS) -> FeatureSet:
    """The set `micro10`: ten features of the last eleven trades.

    Args:
        session_gap_ns: Silence after which the windows start anew: 5 minutes for ticks, 0 (never) for daily bars.

    Raises:
        ValueError: `session_gap_ns` is negative.
    """
    _require_gap(session_gap_ns)
    return FeatureSet("micro10", MICRO10_FEATURES, session_gap_ns, kernel_version=1, warm_up_trades=11)


MICRO32_FEATURES = (
    *MICRO10_FEATURES,
    "trade_sign",
    "ret_50",
    "signed_volume_50",
    "ofi_10",
    "ofi_50",
    "queue_imbalance",
    "microprice_dev_bps",
    "quoted_spread_bps",
    "effective_spread_bps",
    "quote_position",
    "mid_ret_10",
    "kyle_lambda_bps",
    "amihud_100",
    "roll_spread_bps",
    "realised_vol_100",
    "bipower_vol_100",
    "jump_share_100",
    "ewma_vol_30s",
    "ewma_signed_volume_10s",
    "trade_rate_100",
    "day_sin",
    "day_cos",
)


def micro32(session_gap_ns: int = TICK_SESSION_GAP_NS) -> FeatureSet:
    """The set `micro32`: the ten of `micro10` and 22 more, of the last 101 trades and the quotes between them.

    A feed without quotes is never ready with it: a quote must be in force at each of the last 51 trades.

    Args:
        session_gap_ns: As `micro10`; a quote older than it is in force no more.

    Raises:
        ValueError: `session_gap_ns` is negative.
    """
    _require_gap(session_gap_ns)
    return FeatureSet("micro32", MICRO32_FEATURES, session_gap_ns, kernel_version=1, warm_up_trades=101)


FEATURE_SETS: dict[str, Callable[[int], FeatureSet]] = {"micro10": micro10, "micro32": micro32}


def with_fundamentals(of_ticks: FeatureSet, fundamentals: Sequence[Fundamental]) -> FeatureSet:
    """A set with fundamentals behind its own features: `micro10+fundamentals`, say.

    Raises:
        ValueError: There is none, or more than `FUNDAMENTALS_LIMIT`; a name is another one's, a feature's or none; an
            age is negative; the set has fundamentals already.
    """
    names = [found.name for found in fundamentals]
    if of_ticks.fundamentals or not 0 < len(names) <= FUNDAMENTALS_LIMIT:
        raise ValueError(
            f"expected 1 to {FUNDAMENTALS_LIMIT} fundamentals behind a set without any, got {len(names)} behind"
            f" {of_ticks.name}"
        )
    taken = set(of_ticks.features)
    for found in fundamentals:
        if not re.fullmatch(FUNDAMENTAL_NAME, found.name):
            raise ValueError(f"a fundamental's name is of the form {FUNDAMENTAL_NAME}, got {found.name!r}")
        if found.name in taken:
            raise ValueError(f"{found.name!r} is the name of two features")
        if found.maximum_age_ns < 0:
            raise ValueError(f"maximum_age_ns of {found.name!r} must be >= 0, got {found.maximum_age_ns}")
        taken.add(found.name)
    return replace(
        of_ticks,
        name=of_ticks.name + _WITH_FUNDAMENTALS,
        features=(*of_ticks.features, *names),
        fundamentals=tuple(fundamentals),
    )


def feature_set(name: str, session_gap_ns: int, fundamentals: Sequence[Fundamental] = ()) -> FeatureSet:
    """The set of that name with these parameters; `fundamentals` are those of a set with them in its name.

    Raises:
        FeatureSetUnknown: There is none of that name.
        ValueError: As the set's own function, or as `with_fundamentals`; fundamentals of a set that takes none.
    """
    of_ticks = name.removesuffix(_WITH_FUNDAMENTALS)
    if of_ticks not in FEATURE_SETS:
        raise FeatureSetUnknown(name)
    found = FEATURE_SETS[of_ticks](session_gap_ns)
    if name != of_ticks:
        return with_fundamentals(found, fundamentals)
    if fundamentals:
        raise ValueError(f"{name} takes no fundamentals, {name}{_WITH_FUNDAMENTALS} does")
    return found
