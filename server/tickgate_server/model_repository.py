"""A folder of model packages without a server: what is in it, whether it is fit, and its aliases."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tickgate_server.models.aliases import Aliases, change_alias, read_aliases, roll_back
from tickgate_server.models.errors import (
    GoldenMismatch,
    GraphInvalid,
    HashMismatch,
    LatencyOverBudget,
    ModelNotFound,
    PackageError,
    SchemaMismatch,
    VersionMissing,
)
from tickgate_server.models.loading import LoadedModel, load
from tickgate_server.models.package import MODEL_FILE, is_name, read_manifest, versions
from tickgate_server.models.promotion import PromotionLimits, RuleResult, failures, judge_promotion

# The checks of `models.loading.load`, in its order.
CHECKS = ("manifest", "hash", "schema id", "graph", "golden vectors", "warm-up")
_FAILS: tuple[tuple[type[PackageError], str], ...] = (
    (HashMismatch, "hash"),
    (SchemaMismatch, "schema id"),
    (GraphInvalid, "graph"),
    (GoldenMismatch, "golden vectors"),
    (LatencyOverBudget, "warm-up"),
)


@dataclass(frozen=True, slots=True)
class Verified:
    """What the checks of loading found of one version.

    Attributes:
        name, version: Which.
        model: Where it passed.
        error: Else the first that failed.
    """

    name: str
    version: int
    model: LoadedModel | None
    error: PackageError | None

    @property
    def failed(self) -> str:
        """The check that failed, of `CHECKS`; empty: none."""
        if self.error is None:
            return ""
        found = next((check for kind, check in _FAILS if isinstance(self.error, kind)), None)
        return found or ("hash" if self.error.path.name == MODEL_FILE else "manifest")


@dataclass(frozen=True, slots=True)
class Changed:
    """Aliases before and after a change, and the rules of a promotion."""

    before: int | None
    aliases: Aliases
    rules: tuple[RuleResult, ...] = ()
    override: str = ""


class Repository:
    """One folder.

    Args:
        folder: Of the packages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Of the models that have a version, sorted."""
        folders = (path.name for path in self._folder.iterdir() if path.is_dir())
        return sorted(name for name in folders if is_name(name) and versions(self._folder, name))

    def verify(self, name: str = "", version: int = 0) -> list[Verified]:
        """Check versions as a server does before it lets requests reach them.

        Args:
            name: Of one model; empty: all.
            version: One of its versions; 0: all.

        Raises:
            ModelNotFound: There is no such model.
            VersionMissing: It has no such version.
        """
        names = [self._known(name)] if name else self.names()
        found = [(one, number) for one in names for number in versions(self._folder, one) if version in {0, number}]
        if version and not found:
            raise VersionMissing(name, version)
        return [self._verified(*one) for one in found]

    def load(self, name: str, version: int) -> LoadedModel:
        """One version, checked.

        Raises:
            ModelNotFound: There is no such model.
            VersionMissing: It has no such version.
            PackageError: The first check that failed.
        """
        folder = self._folder / self._known(name) / str(version)
        if not folder.is_dir():
            raise VersionMissing(name, version)
        return load(folder)

    def all_aliases(self, found: Sequence[Verified]) -> dict[str, tuple[Aliases | None, int | None]]:
        """Of each model among versions that were checked: what the repository names, and what production means.

        Raises:
            AliasesInvalid: As `models.aliases.read_aliases`.
        """
        known = {}
        for name in {one.name for one in found}:
            aliases = read_aliases(self._folder / name)
            fit = [one.version for one in found if one.name == name and one.model is not None]
            known[name] = aliases, _production(aliases, reversed(fit))
        return known

    def _meant(self, name: str) -> int | None:
        """What production means; None: nothing."""
        fit = (one for one in reversed(versions(self._folder, name)) if self._verified(name, one).model is not None)
        return _production(read_aliases(self._folder / name), fit)

    def promote(
        self,
        name: str,
        version: int,
        *,
        expected: int | None,
        reason: str,
        who: str,
        override: str,
        journal: Path | None,
        limits: PromotionLimits,
    ) -> Changed:
        """Have production mean a version, if it passes the checks of loading and the rules of promotion.

        Args:
            name: Of the model.
            version: That production is to mean.
            expected: What production means as far as the caller knows, 0: nothing; None: what it means now.
            reason: Why.
            who: By whom.
            override: Why a version is promoted that does not pass the rules; empty: it must.
            journal: Of the server, which shadows' records are beside; None: none.
            limits: That a shadow is held against.

        Raises:
            ModelNotFound: As `load`; VersionMissing and PackageError likewise.
            PromotionRefused: It does not pass the rules.
            AliasError: As `models.aliases.change_alias`.
        """
        self.load(name, version)
        folder = self._folder / name
        before = self._meant(name)
        compared = before if expected is None else expected or None
        rules = judge_promotion(read_manifest(folder / str(version)), journal, compared, limits, override)
        needed = override if failures(rules) else ""  # an override that nothing needed is none
        aliases = change_alias(
            folder,
            "production",
            version,
            expected=compared,
            reason=reason,
            who=who,
            override=needed,
            implied=before,
        )
        return Changed(before, aliases, rules, needed)

    def roll_back(self, name: str, *, expected: int | None, reason: str, who: str) -> Changed:
        """Have production mean the version before.

        Raises:
            ModelNotFound: There is no such model.
            AliasError: As `models.aliases.roll_back`.
        """
        folder = self._folder / self._known(name)
        found = read_aliases(folder)
        before = None if found is None else found.production
        compared = before if expected is None else expected or None
        return Changed(before, roll_back(folder, expected=compared, reason=reason, who=who))

    def _known(self, name: str) -> str:
        if not is_name(name) or not versions(self._folder, name):
            raise ModelNotFound(name, ", ".join(self.names()) or "none")
        return name

    def _verified(self, name: str, version: int) -> Verified:
        try:
            return Verified(name, version, load(self._folder / name / str(version)), None)
        except PackageError as error:
            return Verified(name, version, None, error)


def _production(aliases: Aliases | None, fit: Iterable[int]) -> int | None:
    """What production means: named, or the highest version that is fit and has no other alias; None: nothing.

    Args:
        aliases: As the repository names them.
        fit: Versions that passed their checks, descending; looked at as far as is needed.
    """
    if aliases is not None and aliases.production is not None:
        return aliases.production
    others = set() if aliases is None else {aliases.version_of("shadow"), aliases.version_of("canary")}
    return next((version for version in fit if version not in others), None)
