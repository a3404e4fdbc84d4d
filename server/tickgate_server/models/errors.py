"""What can go wrong with models.

ModelError
├── PackageError            a package on disk is not fit to serve; says which file and why
│   ├── ManifestInvalid
│   ├── PackageFileMissing
│   ├── HashMismatch
│   ├── SchemaMismatch
│   ├── GraphInvalid
│   ├── GoldenMismatch
│   ├── LatencyOverBudget
│   └── CheckerFailed       the process that checks packages ended, or took too long
├── VersionExists           publishing would overwrite
├── AliasError              an alias cannot be read or changed
│   ├── AliasesInvalid      the file of a model's aliases is none
│   ├── AliasConflict       it points elsewhere than the caller expected
│   ├── VersionMissing      it would point at a version that is not on disk
│   ├── NothingBefore       there is no production before this one
│   └── RepositoryReadOnly  the repository cannot be written
├── VersionInUse            an alias means the version that was to be unloaded
├── LoadsFull               too many versions wait for their checks
├── PromotionRefused        it does not pass the rules: `models.promotion`
├── ShadowRecordInvalid     the file of a shadow's record is none: `models.shadow_record`
├── ModelNotFound           no such name, version or alias
├── ModelNotLoaded          known, and not fit to serve
└── ModelBusy               its queue is full
"""

from pathlib import Path


class ModelError(Exception):
    """Root of this tree."""


class PackageError(ModelError):
    """A package is not fit to serve.

    Attributes:
        path: The file at fault.
        why: What was found and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class ManifestInvalid(PackageError):
    """The manifest is not JSON, lacks a key, has an unknown one, or contradicts itself or its place."""


class PackageFileMissing(PackageError):
    """A file of the package is absent or cannot be read."""


class HashMismatch(PackageError):
    """The model's bytes are not those that the manifest was made for."""


class SchemaMismatch(PackageError):
    """The model was trained on other features than this server computes."""


class GraphInvalid(PackageError):
    """ONNX Runtime refuses the model, or its inputs or outputs have another shape or type than declared."""


class GoldenMismatch(PackageError):
    """The model does not give the outputs of the one it was converted from."""


class LatencyOverBudget(PackageError):
    """The model is slower here than its manifest allows."""


class CheckerFailed(PackageError):
    """The process that checks packages ended over this one, or took too long, or could not be started."""


def by_name(name: str) -> type[PackageError]:
    """The class of a `PackageError` by its name, as the process that checks packages says it."""
    return {found.__name__: found for found in PackageError.__subclasses__()}[name]


class VersionExists(ModelError):
    """Publishing would overwrite a version: versions never change once there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists; versions never change once published, publish a higher one")
        self.path = path


class AliasError(ModelError):
    """An alias cannot be read or changed."""


class AliasesInvalid(AliasError):
    """The file of a model's aliases cannot be read, or is not what it should be.

    Attributes:
        path: The file.
        why: What was found and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class AliasConflict(AliasError):
    """An alias points elsewhere than the caller expected: another change was first.

    Attributes:
        name: Of the model.
        alias: Which.
        expected: What the caller expected; None: nothing.
        current: What it points at; None: nothing.
    """

    def __init__(self, name: str, alias: str, expected: int | None, current: int | None) -> None:
        super().__init__(f"{name}@{alias}: expected version {expected or 'none'}, it is {current or 'none'}")
        self.name = name
        self.alias = alias
        self.expected = expected
        self.current = current


class VersionMissing(AliasError):
    """An alias would point at a version that is not on disk.

    Attributes:
        name: Of the model.
        version: That is not there.
    """

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"{name} has no version {version} in the repository")
        self.name = name
        self.version = version


class NothingBefore(AliasError):
    """There is no production version before this one to go back to.

    Attributes:
        name: Of the model.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: no production version before this one is known")
        self.name = name


class RepositoryReadOnly(AliasError):
    """The repository cannot be written.

    Attributes:
        path: What could not be written.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: the repository cannot be written ({why})")
        self.path = path


class VersionInUse(ModelError):
    """An alias means the version that was to be unloaded.

    Attributes:
        name: Of the model.
        version: Its own.
        alias: That means it.
    """

    def __init__(self, name: str, version: int, alias: str) -> None:
        super().__init__(f"{name}:{version} is in use: {name}@{alias} means it")
        self.name = name
        self.version = version
        self.alias = alias


class LoadsFull(ModelError):
    """As many versions wait for their checks as may; nothing changed.

    Attributes:
        waiting: How many.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} versions wait to be loaded, and no more may")
        self.waiting = waiting


class ModelNotFound(ModelError):
    """No such name, version or alias.

    Attributes:
        asked: The reference as the caller wrote it.
    """

    def __init__(self, asked: str, known: str) -> None:
        super().__init__(f"no model {asked!r}; known: {known}")
        self.asked = asked


class ModelNotLoaded(ModelError):
    """The version is there and did not pass its checks.

    Attributes:
        asked: The reference as the caller wrote it.
        why: What its checks found.
    """

    def __init__(self, asked: str, why: str) -> None:
        super().__init__(f"model {asked!r} is not loaded: {why}")
        self.asked = asked
        self.why = why


class ModelBusy(ModelError):
    """As many requests wait for the model's thread as may; nothing changed.

    Attributes:
        model: Name and version.
        waiting: Requests that wait.
    """

    def __init__(self, model: str, waiting: int) -> None:
        super().__init__(f"model {model} is busy: {waiting} requests wait for it, and no more may")
        self.model = model
        self.waiting = waiting
