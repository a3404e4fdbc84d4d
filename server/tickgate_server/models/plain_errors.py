"""What can go wrong with models in a plain layout, as other people's servers have it; part of the tree in `errors`.

ModelError
└── PlainError
    ├── PlainPackageInvalid     a version cannot be served; says which file and why
    ├── PlainNotFound           no such model, or no such version of it
    ├── PlainNotReady           the version is known, and is not ready
    ├── PlainNotLoaded          a load that was asked for did not succeed
    ├── InferenceBusy           as many requests wait as may
    └── RepositoryBusy          as many loads and unloads wait as may

What the first three say, and the fourth in part, is what clients of Triton look for.
"""

from pathlib import Path

from tickgate_server.models.errors import ModelError


class PlainError(ModelError):
    """Root of these."""


class PlainPackageInvalid(PlainError):
    """A version, or the configuration of its model, cannot be served.

    Attributes:
        path: The file at fault.
        why: What was found and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class PlainNotFound(PlainError):
    """No such model, or no such version of it.

    Attributes:
        name: Of the model.
        version: As it was asked for; empty: any.
    """

    def __init__(self, name: str, version: str, why: str) -> None:
        super().__init__(f"Request for unknown model: '{name}' {why}")
        self.name = name
        self.version = version


class PlainNotReady(PlainError):
    """The version is known, and is not ready.

    Attributes:
        name, version: Which.
    """

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"Request for unknown model: '{name}' version {version} is not at ready state")
        self.name = name
        self.version = version


class PlainNotLoaded(PlainError):
    """A load that was asked for did not succeed.

    Attributes:
        name: Of the model.
        why: What its checks found.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"failed to load '{name}', {why}")
        self.name = name
        self.why = why


class InferenceBusy(PlainError):
    """As many requests wait for a thread as may; nothing was run.

    Attributes:
        waiting: Requests that wait.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"Exceeds maximum queue size: {waiting} requests wait, and no more may")
        self.waiting = waiting


class RepositoryBusy(PlainError):
    """As many repository calls wait as may; nothing changed.

    Attributes:
        waiting: Calls that wait.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} repository calls wait, and no more may")
        self.waiting = waiting
