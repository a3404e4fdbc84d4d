"""The models that requests can reach: names, versions, and what each alias means now."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from tickgate_server.models.aliases import Aliases, Canary, read_aliases
from tickgate_server.models.canary import CanaryChoice
from tickgate_server.models.errors import AliasesInvalid, ModelNotFound, ModelNotLoaded, PackageError
from tickgate_server.models.loading import LoadedModel, load
from tickgate_server.models.package import versions

PRODUCTION = "production"
_LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refused:
    """A version on disk that did not pass its checks."""

    name: str
    version: int
    error: PackageError


@dataclass(frozen=True, slots=True)
class InForce:
    """What a model's aliases mean to requests.

    Attributes:
        production: None: no version, and references without one find none.
        shadow: As the file has it; nothing here answers with it, and it need not be loaded here.
        canary: None where its version is not loaded, or is production's own.
    """

    production: int | None = None
    shadow: int | None = None
    canary: Canary | None = None

    def meaning(self, alias: str) -> tuple[int | None, float]:
        """Version of an alias, None: none, and the share in percent of a canary."""
        if alias == "canary":
            return (None, 0.0) if self.canary is None else (self.canary.version, self.canary.share_percent)
        return (self.production if alias == PRODUCTION else self.shadow), 0.0

    def with_alias(self, alias: str, version: int | None, share_percent: float) -> "InForce":
        """The same with one alias that means another version."""
        if alias == "canary":
            canary = None if version is None else Canary(version=version, share_percent=share_percent)
            return replace(self, canary=canary)
        return replace(self, production=version) if alias == PRODUCTION else replace(self, shadow=version)


def in_force(
    loaded: Collection[int], aliases: Aliases | AliasesInvalid | None, before: InForce | None = None
) -> InForce:
    """What the aliases of a model mean, given the versions that are loaded.

    A production version that is named and not loaded leaves the one that answers in its place, if there is one: a
    version that fails to load changes nothing. Where none is named, it is the highest that no other alias names at a
    start; while it serves what answers goes on to, whatever is loaded beside it.

    Args:
        loaded: Versions.
        aliases: As their file has them; None: there is none. An error: what was in force stays.
        before: What was in force; None: nothing, at a start.
    """
    if isinstance(aliases, AliasesInvalid):
        return before or InForce()
    aliases = aliases or Aliases()
    canary = aliases.canary
    was = None if before is None else before.production
    if aliases.production is not None:
        production = next((version for version in (aliases.production, was) if version in loaded), None)
    else:
        others = {aliases.shadow, None if canary is None else canary.version}
        free = [version for version in loaded if version not in others]
        production = was if was in free else max(free, default=None)
    if canary is not None and (canary.version not in loaded or canary.version == production):
        canary = None
    return InForce(production, aliases.shadow, canary)


class ModelRegistry:
    """Loaded versions by the references that requests use; one dict look-up a request. One thread.

    `name` and `name@production` mean what is in force as production, or for a share of the symbols the canary;
    `name@canary`, `name@shadow` and `name:version` mean that version where it is loaded. The empty reference is the
    default model's name: raises `ModelNotFound` where that is no model at all. Without a default, a model that is the
    only one becomes it.

    Attributes:
        refused: Every version that did not pass its checks at the start, with its reason.
        absent: Why a version that is known is not loaded, by name and version.
        default: Name of the default model; empty: none.
        aliases: As their files had them at the start, by name.
        in_force: What they mean now, by name.
        references: What each means, but for symbols that are a canary's.
        canaries: By the references that they take symbols from.
    """

    def __init__(
        self,
        models: Iterable[LoadedModel],
        refused: Iterable[Refused] = (),
        default: str = "",
        aliases: Mapping[str, Aliases | AliasesInvalid | None] | None = None,
    ) -> None:
        self.refused = list(refused)
        self.absent = {(one.name, one.version): one.error.why for one in self.refused}
        self.default = default
        self.in_force: dict[str, InForce] = {}
        self.references: dict[str, LoadedModel] = {}
        self.canaries: dict[str, CanaryChoice] = {}
        self._loaded: dict[str, dict[int, LoadedModel]] = {}
        self._of_name: dict[str, list[str]] = {}  # references
        for model in models:
            self._loaded.setdefault(model.name, {})[model.version] = model
        self._choose_default()
        self.aliases = dict(aliases or {})
        for name in {*self._loaded, *self.aliases}:
            self.point(name, in_force(self.versions_of(name), self.aliases.get(name)))
        if default and default not in self.references and isinstance(why := self._why_not(default), ModelNotFound):
            raise why

    @property
    def models(self) -> list[LoadedModel]:
        """Every loaded version, by name, then ascending."""
        return [self._loaded[name][version] for name in sorted(self._loaded) for version in sorted(self._loaded[name])]

    @property
    def names(self) -> list[str]:
        """Names with at least one loaded version, sorted."""
        return sorted(self._loaded)

    def versions_of(self, name: str) -> Collection[int]:
        """Those that are loaded."""
        return self._loaded.get(name, {}).keys()

    def find(self, name: str, version: int) -> LoadedModel | None:
        """A version that is loaded; None: it is not."""
        return self._loaded.get(name, {}).get(version)

    def add(self, model: LoadedModel) -> None:
        """Make a version reachable by its number, in place of one of the same; aliases stay as they are."""
        self._loaded.setdefault(model.name, {})[model.version] = model
        self.absent.pop((model.name, model.version), None)
        self._choose_default()
        self.point(model.name, self.in_force.get(model.name, InForce()))

    def remove(self, model: LoadedModel, why: str) -> None:
        """Make a version unreachable; an alias that means it means nothing from now on."""
        found = self._loaded.get(model.name, {})
        if found.get(model.version) is model:
            del found[model.version]
            if not found:
                del self._loaded[model.name]
            self.absent[model.name, model.version] = why
            self.point(model.name, self.in_force.get(model.name, InForce()))

    def point(self, name: str, wanted: InForce) -> None:
        """Have the aliases of a model mean this from the next request on; what is not loaded is not reached."""
        loaded = self._loaded.get(name, {})
        for reference in self._of_name.pop(name, ()):
            self.references.pop(reference, None)
            self.canaries.pop(reference, None)
        found = {f"{name}:{version}": model for version, model in loaded.items()}
        plain = [name, f"{name}@{PRODUCTION}"]
        canary = None if wanted.canary is None else loaded.get(wanted.canary.version)
        for alias, version in (("canary", canary and canary.version), ("shadow", wanted.shadow)):
            if version in loaded:
                found[f"{name}@{alias}"] = loaded[version]
        if wanted.production in loaded:
            found |= dict.fromkeys(plain, loaded[wanted.production])
            if canary is not None and wanted.canary is not None:
                choice = CanaryChoice(canary, wanted.canary.share_percent)
                self.canaries |= dict.fromkeys(plain, choice)
        self.references |= found
        self._of_name[name] = list(found)
        self.in_force[name] = wanted
        if self.default in self.references:
            self.references[""] = self.references[self.default]
        else:
            self.references.pop("", None)
        if self.default in self.canaries:
            self.canaries[""] = self.canaries[self.default]
        else:
            self.canaries.pop("", None)

    def resolve(self, reference: str, symbol: str = "") -> LoadedModel:
        """The version that `name`, `name@alias`, `name:version` or the empty reference means now for a symbol.

        Raises:
            ModelNotFound: There is no such name, version or alias, or no default model.
            ModelNotLoaded: It is there and is not loaded.
        """
        try:
            model = self.references[reference]
        except KeyError:
            raise self._why_not(reference) from None
        if self.canaries:
            choice = self.canaries.get(reference)
            if choice is not None and choice.takes(symbol):
                return choice.model
        return model

    def _choose_default(self) -> None:
        if not self.default and len(self._loaded) == 1:
            self.default = next(iter(self._loaded))

    def _why_not(self, reference: str) -> ModelNotFound | ModelNotLoaded:
        meant = (reference or self.default).removesuffix(f"@{PRODUCTION}")
        if meant in self._loaded:
            return ModelNotLoaded(reference, "production means no version")
        known = [number for of, number in self.absent if of == meant]
        name, version = meant, max(known, default=0)
        if ":" in meant:
            name, _, number = meant.partition(":")
            version = next((one for of, one in self.absent if of == name and str(one) == number), 0)
        elif meant.endswith("@shadow"):
            name = meant.removesuffix("@shadow")
            version = self.in_force.get(name, InForce()).shadow or 0
        if version:
            return ModelNotLoaded(reference, self.absent.get((name, version), f"version {version} is not loaded"))
        return ModelNotFound(reference, ", ".join(self.names) or "none")


def folders_of(repository: Path) -> list[Path]:
    """The folder of each version, `<repository>/<name>/<version>/`; a name with a dot before it is none."""
    folders = (path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder / str(version) for folder in sorted(folders) for version in versions(repository, folder.name)]


def aliases_of(folder: Path) -> Aliases | AliasesInvalid | None:
    """The aliases of the model in a folder; the error, which is in the log, where its file cannot be used."""
    try:
        return read_aliases(folder)
    except AliasesInvalid as error:
        _LOG.error("aliases refused", model=folder.name, file=str(error.path), why=error.why)
        return error


def load_repository(
    repository: Path,
    default: str = "",
    *,
    inline_limit_us: float = math.inf,
    load_all: Callable[[list[Path], float], list[LoadedModel | PackageError]] | None = None,
) -> ModelRegistry:
    """Load every version in a repository; what fails is kept with its reason, and the others serve.

    Args:
        repository: The folder.
        default: Name of the default model.
        inline_limit_us: As `loading.load`.
        load_all: Loads folders, in their order; None: one after the other, here.
    """
    folders = folders_of(repository)
    results = (load_all or load_in_turn)(folders, inline_limit_us)
    models = [result for result in results if isinstance(result, LoadedModel)]
    refused = [
        Refused(folder.parent.name, int(folder.name), result)
        for folder, result in zip(folders, results, strict=True)
        if isinstance(result, PackageError)
    ]
    names = {folder.parent.name for folder in folders}
    return ModelRegistry(models, refused, default, {name: aliases_of(repository / name) for name in names})


def load_in_turn(folders: list[Path], inline_limit_us: float) -> list[LoadedModel | PackageError]:
    """Load packages one after the other, in this process: what passed, or why it did not."""
    results: list[LoadedModel | PackageError] = []
    for folder in folders:
        try:
            results.append(load(folder, inline_limit_us=inline_limit_us))
        except PackageError as error:
            results.append(error)
    return results
