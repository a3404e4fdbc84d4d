"""The models that requests can reach: names, versions, and the alias `production`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tickgate_server.models.errors import ModelNotFound, ModelNotLoaded, PackageError
from tickgate_server.models.loading import LoadedModel, load
from tickgate_server.models.package import versions

PRODUCTION = "production"


@dataclass(frozen=True, slots=True)
class Refused:
    """A version on disk that did not pass its checks."""

    name: str
    version: int
    error: PackageError


class ModelRegistry:
    """Loaded versions by the references that requests use; one dict look-up a request.

    The alias `production` is the highest version that loaded. The empty reference is the default model: raises
    `ModelNotFound` where that is no model at all.

    Attributes:
        models: Every loaded version, by name, then ascending.
        refused: Every version that was not, with its reason.
        default: Name of the default model; empty: none.
    """

    def __init__(self, models: Iterable[LoadedModel], refused: Iterable[Refused] = (), default: str = "") -> None:
        self.models = sorted(models, key=lambda model: (model.name, model.version))
        self.refused = list(refused)
        self._references: dict[str, LoadedModel] = {}
        for model in self.models:  # ascending, so the highest version is what the name ends at
            self._references[f"{model.name}:{model.version}"] = model
            self._references[f"{model.name}@{PRODUCTION}"] = model
            self._references[model.name] = model
        names = {model.name for model in self.models}
        if not default and len(names) == 1:
            default = next(iter(names))
        self.default = default
        if default in self._references:
            self._references[""] = self._references[default]
        elif default and isinstance(why := self._why_not(default), ModelNotFound):
            raise why

    @property
    def names(self) -> list[str]:
        """Names with at least one loaded version, sorted."""
        return sorted({model.name for model in self.models})

    def references_of(self, model: LoadedModel) -> list[str]:
        """Every reference that means this version now."""
        return [reference for reference, meant in self._references.items() if meant is model]

    def resolve(self, reference: str) -> LoadedModel:
        """The version that `name`, `name@alias`, `name:version` or the empty reference means now.

        Raises:
            ModelNotFound: There is no such name, version or alias, or no default model.
            ModelNotLoaded: It is there and did not pass its checks.
        """
        try:
            return self._references[reference]
        except KeyError:
            raise self._why_not(reference) from None

    def _why_not(self, reference: str) -> ModelNotFound | ModelNotLoaded:
        meant = reference or self.default
        for refused in reversed(self.refused):
            of_name = {refused.name, f"{refused.name}@{PRODUCTION}"}
            if meant == f"{refused.name}:{refused.version}" or meant in of_name:
                return ModelNotLoaded(reference, refused.error.why)
        return ModelNotFound(reference, ", ".join(self.names) or "none")


def load_repository(repository: Path, default: str = "", *, inline_limit_us: float = math.inf) -> ModelRegistry:
    """Load every version in a repository; what fails is kept with its reason, and the others serve.

    Names and versions are the folders of `<repository>/<name>/<version>/`; a name with a dot before it is none.

    Args:
        repository: The folder.
        default: Name of the default model.
        inline_limit_us: As `loading.load`.
    """
    models: list[LoadedModel] = []
    refused: list[Refused] = []
    folders = (path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in sorted(folders):
        for version in versions(repository, folder.name):
            try:
                models.append(load(folder / str(version), inline_limit_us=inline_limit_us))
            except PackageError as error:
                refused.append(Refused(folder.name, version, error))
    return ModelRegistry(models, refused, default)
