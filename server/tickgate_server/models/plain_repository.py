"""The models of a repository as other people's servers have them: loaded and unloaded when somebody says so.

One thread does all that reads files or makes sessions, in the order in which it was asked for. Who looks at the view
sees one that is whole: it is replaced, never changed. A version that was unloaded goes when the last request that
runs it has ended, on that thread.
"""

import queue
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from threading import Lock, Thread
from typing import TypeAlias, TypeVar

import structlog

from tickgate_server.models.package import versions
from tickgate_server.models.plain import PlainModel, has_manifest, load_plain
from tickgate_server.models.plain_config import PlainConfig, read_config
from tickgate_server.models.plain_errors import (
    PlainError,
    PlainNotFound,
    PlainNotLoaded,
    PlainNotReady,
    PlainPackageInvalid,
    RepositoryBusy,
)

_LOG = structlog.get_logger()

# Versions that may be ready at once, and repository calls that may wait.
VERSIONS = 1024
COMMANDS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_JOIN_S = 1.0
_UNLOADED = "unloaded"


class PlainState(StrEnum):
    """What a version is in; names as clients know them."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version that was loaded once, or that somebody tried to.

    Attributes:
        state: It has.
        model: Where it is READY.
        reason: Why it is UNAVAILABLE.
    """

    state: PlainState
    model: PlainModel | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A version in the repository; without a version, a model of which none was loaded yet."""

    name: str
    version: int | None = None
    state: PlainState | None = None
    reason: str = ""


Done: TypeAlias = Callable[[Exception | None], None]
Indexed: TypeAlias = Callable[[list[IndexEntry]], None]
_View: TypeAlias = Mapping[int, VersionView]
_Told = TypeVar("_Told")


class PlainRepository:
    """See above. What is asked for with a `done` is done on the repository's thread, and `done` is called there.

    Args:
        folder: Of the repository.
        load_all: Begin with every model that is there; else with none.
    """

    def __init__(self, folder: Path, *, load_all: bool = True) -> None:
        self._folder = folder
        self._views: Mapping[str, _View] = {}
        self._started = False
        self._uses: dict[PlainModel, int] = {}  # requests that run a version
        self._retired: set[PlainModel] = set()  # unloaded, and still run
        self._lock = Lock()  # over the two, and the replacing of the view
        self._closed = False
        self._telling = Lock()
        self._commands: queue.Queue[Callable[[], None] | None] = queue.Queue(COMMANDS)
        self._thread = Thread(target=self._work, args=(load_all,), name="tickgate-repository", daemon=True)
        self._thread.start()

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether what was to be loaded at the start has been, and every model that was not unloaded has a version."""
        views = [view for view in self._views.values() if not _was_unloaded(view)]
        return self._started and all(_ready(view) for view in views)

    def ready_models(self, name: str = "") -> list[PlainModel]:
        """Every version that is ready, of all models or of one, by name, then ascending."""
        views = self._views
        names = sorted(views) if not name else [name] if name in views else []
        return [model for name in names for _, model in sorted(_ready(views[name]).items())]

    def resolve(self, name: str, version: int | None) -> PlainModel:
        """A version that is ready; None: the highest.

        Raises:
            PlainNotFound: There is no such model or version, or none is ready.
            PlainNotReady: That version is not.
        """
        view = self._views.get(name)
        if view is None:
            raise PlainNotFound(name, "", "is not found")
        if version is None:
            found = _ready(view)
            if not found:
                raise PlainNotFound(name, "", "has no available versions")
            return found[max(found)]
        if version not in view:
            raise PlainNotFound(name, str(version), f"version {version} is not found")
        model = view[version].model
        if model is None:
            raise PlainNotReady(name, version)
        return model

    def acquire(self, name: str, version: int | None) -> PlainModel:
        """The same for a request that runs it; `release` it after."""
        with self._lock:
            model = self.resolve(name, version)
            self._uses[model] = self._uses.get(model, 0) + 1
        return model

    def release(self, model: PlainModel) -> None:
        """The request has ended; an unloaded version that nobody runs any more goes."""
        with self._lock:
            uses = self._uses.pop(model) - 1
            if uses:
                self._uses[model] = uses
                return
            retired = model in self._retired
        if retired:
            with suppress(queue.Full):  # it goes with the next one, then
                self._commands.put_nowait(self._let_go)

    # -- what is done with it ------------------------------------------------------------------------------------------

    def index(self, done: Indexed) -> None:
        """List the repository: what is on disk, and what was loaded. Raises `RepositoryBusy`."""
        self._ask(lambda: self._tell(done, self._index()))

    def load(self, name: str, done: Done) -> None:
        """Load a model's versions anew as its configuration asks for. Raises `RepositoryBusy`.

        `done` gets a `PlainNotLoaded` where a version was refused: it is UNAVAILABLE then, or as it was if it was
        ready; the others are ready all the same. A version that is not asked for any more is unloaded.
        """
        self._ask(lambda: self._tell(done, self._tried(name)))

    def unload(self, name: str, done: Done) -> None:
        """Unload all versions of a model; one that is not there is unloaded already. Raises `RepositoryBusy`."""

        def unload() -> None:
            if name in self._views:
                self._keep(name, {version: _gone(view) for version, view in self._views[name].items()})
                _LOG.info("inference model unloaded", model=name)
            self._tell(done, None)

        self._ask(unload)

    def close(self) -> None:
        """End the thread; what waits is not done, and nobody is told any more."""
        with self._telling:
            self._closed = True
        with suppress(queue.Empty):
            while True:
                self._commands.get_nowait()
        self._commands.put(None)
        self._thread.join(_JOIN_S)

    # -- on the repository's thread ------------------------------------------------------------------------------------

    def _ask(self, command: Callable[[], None]) -> None:
        try:
            self._commands.put_nowait(command)
        except queue.Full:
            raise RepositoryBusy(COMMANDS) from None

    def _tell(self, done: Callable[[_Told], None], what: _Told) -> None:
        with self._telling:
            if not self._closed:
                done(what)

    def _work(self, load_all: bool) -> None:  # noqa: FBT001 - a thread's argument
        for name in self._names() if load_all else ():
            self._tried(name)
        self._started = True
        _LOG.info("inference models loaded", ready=len(self.ready_models()), folder=str(self._folder))
        while (command := self._commands.get()) is not None:
            command()
            self._let_go()

    def _tried(self, name: str) -> Exception | None:
        try:
            self._load(name)
        except PlainError as error:
            _LOG.error("inference model not loaded", model=name, why=str(error))
            return error
        except Exception as error:  # noqa: BLE001 - the thread goes on; who asked is told, and the log has it
            _LOG.error("inference model not loaded", model=name, exc_info=error)
            return error
        return None

    def _load(self, name: str) -> None:
        config, wanted = self._wanted(name)
        before = self._views.get(name, {})
        view = {version: _gone(known) for version, known in before.items() if version not in wanted}
        loading = {
            version: known
            if (known := before.get(version)) is not None and known.model is not None
            else VersionView(PlainState.LOADING)
            for version in wanted
        }
        self._keep(name, view | loading)
        refused: dict[int, PlainPackageInvalid] = {}
        for version in wanted:
            try:
                model = load_plain(self._folder / name / str(version), config)
            except PlainPackageInvalid as error:
                refused[version] = error
                if loading[version].model is None:
                    loading[version] = VersionView(PlainState.UNAVAILABLE, reason=str(error))
            else:
                loading[version] = VersionView(PlainState.READY, model)
                _LOG.info("inference model ready", model=name, version=version)
            self._keep(name, view | loading)
        if refused:
            raise PlainNotLoaded(name, "; ".join(f"version {version}: {why}" for version, why in refused.items()))

    def _wanted(self, name: str) -> tuple[PlainConfig, list[int]]:
        """What of a model is to be loaded."""
        found = versions(self._folder, name) if _NAME.fullmatch(name) else []
        if not found:
            raise PlainNotLoaded(name, f"failed to poll from model repository: no version of it in {self._folder}")
        try:
            config = read_config(self._folder / name)
        except PlainPackageInvalid as error:
            view = self._views.get(name, {})
            self._keep(name, {found[-1]: VersionView(PlainState.UNAVAILABLE, reason=str(error)), **view})
            raise PlainNotLoaded(name, str(error)) from error
        if not config.stated and has_manifest(self._folder / name / str(found[-1])):
            config = replace(config, latest=0)  # as tickgate's own contract has packages: all of them side by side
        wanted = config.wanted(found)
        if not wanted:
            raise PlainNotLoaded(name, f"no version is available: version_policy wants none of {found}")
        others = sum(len(_ready(view)) for known, view in self._views.items() if known != name)
        if others + len(wanted) > VERSIONS:
            raise PlainNotLoaded(name, f"{others} versions of other models are ready, and at most {VERSIONS} may be")
        return config, wanted

    def _keep(self, name: str, view: _View) -> None:
        """Put a view in the place of the one before; versions that are gone with it go once nobody runs them."""
        kept = {one.model for one in view.values()}
        before = {one.model for one in self._views.get(name, {}).values() if one.model is not None}
        with self._lock:
            self._views = {**self._views, name: view}
            self._retired |= before - kept
        del before

    def _let_go(self) -> None:
        with self._lock:
            free = {model for model in self._retired if model not in self._uses}
            self._retired -= free
        free.clear()  # here, and with no lock held: a session takes a while to go

    def _names(self) -> list[str]:
        try:
            folders = [path.name for path in self._folder.iterdir() if path.is_dir()]
        except OSError as error:
            _LOG.error("the model repository cannot be read", folder=str(self._folder), why=str(error))
            return []
        return sorted(name for name in folders if _NAME.fullmatch(name) and versions(self._folder, name))

    def _index(self) -> list[IndexEntry]:
        entries = []
        for name in sorted({*self._names(), *self._views}):
            view = self._views.get(name, {})
            if not view:
                entries.append(IndexEntry(name))
            for version, one in sorted(view.items()):
                entries.append(IndexEntry(name, version, one.state, one.reason))
        return entries


def _ready(view: _View) -> dict[int, PlainModel]:
    return {version: one.model for version, one in view.items() if one.model is not None}


def _gone(view: VersionView) -> VersionView:
    """A version after it was unloaded; one that had been refused keeps its reason."""
    return VersionView(PlainState.UNAVAILABLE, reason=_UNLOADED) if view.model is not None else view


def _was_unloaded(view: _View) -> bool:
    return any(one.reason == _UNLOADED for one in view.values()) and not _ready(view)
