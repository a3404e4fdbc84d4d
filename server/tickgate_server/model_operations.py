"""What a person or a program does to the models of a running server, and how it follows its repository.

Everything here is called on the answering thread, and so is what it calls back. Files are read and written by a thread,
packages are checked by a process of their own (`models.checking`); what they found is taken in between two requests,
in the desk's turn. So a change takes effect at once for the next request, and no answer waits for any of it.

Aliases are followed in the file (`models.aliases`), whoever changes it. A version that production or canary names and
that is not loaded is loaded; until it is, and where it fails, what was in force stays.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import structlog

from tickgate_server.errors import FieldInvalid
from tickgate_server.journal.errors import JournalError
from tickgate_server.models.aliases import Aliases, AliasName, change_alias, roll_back
from tickgate_server.models.checking import Loader
from tickgate_server.models.errors import (
    AliasesInvalid,
    LoadsFull,
    ModelNotFound,
    ModelNotLoaded,
    PackageError,
    VersionInUse,
    VersionMissing,
)
from tickgate_server.models.follower import JOBS_LIMIT, Follower
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.offload import ModelThread
from tickgate_server.models.package import NAME
from tickgate_server.models.registry import PRODUCTION, InForce, in_force
from tickgate_server.models.states import StatusBoard, VersionState, VersionStatus
from tickgate_server.roster import Roster

_LOG = structlog.get_logger()
_ON_THE_WAY = {VersionState.START, VersionState.LOADING}


@dataclass(frozen=True, slots=True)
class Repository:
    """Where the models of a server come from.

    Attributes:
        folder: `<folder>/<name>/<version>/`.
        inline_limit_us: As `loading.load`.
        load_limit_s: A load whose checks take longer has failed.
        follow_s: How often aliases are looked at; 0: never, and what others change is not seen.
        watch: Load versions that appear there without being asked.
    """

    folder: Path
    inline_limit_us: float = 500.0
    load_limit_s: float = 120.0
    follow_s: float = 0.5
    watch: bool = False


@dataclass(frozen=True, slots=True)
class AliasStatus:
    """A model's aliases after a change.

    Attributes:
        name: Of the model.
        aliases: As its file has them.
        in_force: What they mean to the next request.
    """

    name: str
    aliases: Aliases
    in_force: InForce


Change: TypeAlias = VersionStatus | AliasStatus
OnChange: TypeAlias = Callable[[Change], None]
# A version's status, or why there is none: a ModelError, a FieldInvalid or a JournalError.
OnStatus: TypeAlias = Callable[[VersionStatus | Exception], None]
# The aliases since, or why they are as before: a ModelError, a FieldInvalid, a JournalError or an OSError.
OnAliases: TypeAlias = Callable[[Aliases | Exception], None]


class ModelOperations:
    """Loading, unloading and aliases of one engine's models; see the module.

    `done` is called once, with what came of it or with the error; where that is known at once, before the call returns.

    Args:
        roster: Of the engine.
        repository: None: nothing can be loaded, and no alias changed.
    """

    def __init__(self, roster: Roster, repository: Repository | None) -> None:
        self._roster = roster
        self._registry = roster.registry
        self._repository = repository
        self._board = StatusBoard()
        self._watchers: list[OnChange] = []
        self._posted: deque[Callable[[], object]] = deque()  # by other threads, for this one
        self._files: dict[str, Aliases | AliasesInvalid | None] = dict(self._registry.aliases)
        self._waiting: dict[tuple[str, int], list[OnStatus]] = {}  # for loads that are on their way
        self._kept_out: set[tuple[str, int]] = set()  # unloaded by force: no alias loads it again
        self._unsettled: set[str] = set()  # names whose aliases the journal could not tell of
        self._loader: Loader | None = None
        self._follower: Follower | None = None
        for model in self._registry.models:
            self._board.put(model.name, model.version, VersionState.READY, loaded=model)
        for refused in self._registry.refused:
            self._board.put(refused.name, refused.version, VersionState.FAILED, refused.error.why)
        self._board.subscribe(self._tell)
        if repository is not None:
            self._loader = Loader(repository.inline_limit_us, repository.load_limit_s)
            on_versions = self._versions_found if repository.watch else None
            self._follower = Follower(
                repository.folder, repository.follow_s, self._posted.append, self._aliases_found, on_versions
            )

    # -- what there is -------------------------------------------------------------------------------------------------

    def statuses(self) -> list[VersionStatus]:
        """Of every version that is loaded, is being, or failed to, by name and version."""
        return self._board.statuses()

    def status(self, name: str, version: int) -> VersionStatus | None:
        """Of one version; None: nothing is known of it."""
        return self._board.of(name, version)

    def aliases(self, name: str) -> Aliases:
        """As the model's file has them; none at all where there is no file, or none that can be used."""
        found = self._files.get(name)
        return found if isinstance(found, Aliases) else Aliases()

    def in_force(self, name: str) -> InForce:
        """What the model's aliases mean to the next request."""
        return self._registry.in_force.get(name, InForce())

    def subscribe(self, changed: OnChange) -> Callable[[], None]:
        """Have a function called with each change of a version's state or of a model's aliases, in order.

        Returns:
            What ends that.
        """
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    # -- loading and unloading -----------------------------------------------------------------------------------------

    def load(self, name: str, version: int, done: OnStatus) -> None:
        """Load a version: after its checks it is READY, and reached by its number, and by what aliases mean it.

        `done` gets its status; or FieldInvalid, VersionMissing, LoadsFull, the PackageError that it FAILED with, or a
        JournalError. It is called at once where the version is READY; several calls for one version are one load.
        """
        if not re.fullmatch(NAME, name):
            done(FieldInvalid("name", "letters, digits, '_', '.' and '-', up to 64", name))
        elif version < 1:
            done(FieldInvalid("version", "an integer from 1", version))
        elif (loaded := self._registry.find(name, version)) is not None:
            done(self._board.of(name, version) or self._board.put(name, version, VersionState.READY, loaded=loaded))
        elif (name, version) in self._waiting:
            self._waiting[name, version].append(done)
        elif self._loader is None or self._repository is None:
            done(VersionMissing(name, version))
        else:
            self._begin(name, version, done, self._loader, self._repository.folder / name / str(version))

    def _begin(self, name: str, version: int, done: OnStatus, loader: Loader, folder: Path) -> None:
        began = partial(self._posted.append, partial(self._began, name, version))
        try:
            loader.load(folder, began, partial(self._checked, name, version))
        except LoadsFull as error:
            done(error)
            return
        self._kept_out.discard((name, version))
        self._waiting[name, version] = [done]
        self._registry.absent[name, version] = "it is being loaded"
        self._board.put(name, version, VersionState.START)

    def _began(self, name: str, version: int) -> None:
        self._board.put(name, version, VersionState.LOADING)

    def _checked(self, name: str, version: int, result: LoadedModel | PackageError) -> None:
        """On the loader's thread: a version passed, or did not."""
        thread = None if isinstance(result, PackageError) else self._roster.threads.prepare(result)
        self._posted.append(partial(self._take_in, name, version, result, thread))

    def _take_in(self, name: str, version: int, result: LoadedModel | PackageError, thread: ModelThread | None) -> None:
        if isinstance(result, PackageError):
            self._failed(name, version, result, result.why)
            return
        try:
            self._roster.take_in(result, thread)
        except (JournalError, ValueError) as error:
            if thread is not None:
                thread.retire()
            self._failed(name, version, error, str(error))
            return
        _LOG.info(
            "model loaded",
            model=name,
            version=version,
            engine="onnxruntime" if result.not_compiled else "compiled forest",
            not_compiled=result.not_compiled or None,
            warm_up_us_p99=round(result.warm_up_us_p99, 1),
        )
        status = self._board.put(name, version, VersionState.READY, loaded=result)
        self._settle(name)
        self._answer(name, version, status)

    def _failed(self, name: str, version: int, error: Exception, why: str) -> None:
        _LOG.error("model refused", model=name, version=version, check=type(error).__name__, why=why)
        self._registry.absent[name, version] = why
        self._board.put(name, version, VersionState.FAILED, why)
        self._answer(name, version, error)

    def _answer(self, name: str, version: int, result: VersionStatus | Exception) -> None:
        for done in self._waiting.pop((name, version), ()):
            done(result)

    def unload(self, name: str, version: int, done: OnStatus, *, force: bool = False) -> None:
        """Unload a version: no request reaches it from here on, what is under way ends on it, then it is gone.

        `done` gets its last status, GONE; or ModelNotLoaded, or VersionInUse where production or canary mean it.

        Args:
            name: Of the model.
            version: Its own.
            done: See above.
            force: Unload it all the same; until it is loaded by hand its aliases mean nothing, or what is next.
        """
        model = self._registry.find(name, version)
        known = self.in_force(name)
        if model is None:
            why = self._registry.absent.get((name, version), "it is not known")
            done(ModelNotLoaded(f"{name}:{version}", why))
            return
        meant = [alias for alias in (PRODUCTION, "canary") if known.meaning(alias)[0] == version]
        if meant and not force:
            done(VersionInUse(name, version, meant[0]))
            return
        others = set(self._registry.versions_of(name)) - {version}
        try:
            self._roster.point(name, in_force(others, self._files.get(name), known))
        except JournalError as error:
            done(error)
            return
        self._kept_out.add((name, version))
        self._board.put(name, version, VersionState.UNLOADING)
        self._roster.drop(model, "it was unloaded", partial(self._gone, name, version, done))
        if meant:
            self._tell(AliasStatus(name, self.aliases(name), self.in_force(name)))

    def _gone(self, name: str, version: int, done: OnStatus) -> None:
        _LOG.info("model unloaded", model=name, version=version)
        known = self._board.of(name, version)
        if known is not None and known.state is not VersionState.UNLOADING:  # it is being loaded again
            done(known)
        else:
            done(self._board.put(name, version, VersionState.GONE))

    # -- aliases -------------------------------------------------------------------------------------------------------

    def change_alias(
        self,
        name: str,
        alias: AliasName,
        version: int | None,
        *,
        expected: int | None,
        reason: str,
        who: str,
        done: OnAliases,
        share_percent: float = 0.0,
        override: str = "",
    ) -> None:
        """Point an alias elsewhere, if it still points where the caller expects; see `models.aliases.change_alias`.

        What production means without being named counts as what it points at. When `done` is called the next request
        sees the change. It gets the aliases since; or what `models.aliases.change_alias` raises, ModelNotLoaded where
        production or canary would mean a version that is not READY here, or a JournalError: then the file is changed,
        and takes effect when the journal can be written again.
        """
        if alias != "shadow" and version is not None and self._registry.find(name, version) is None:
            why = self._registry.absent.get((name, version), "it is not known; load it first")
            done(ModelNotLoaded(f"{name}:{version}", why))
            return
        implied = self.in_force(name).production
        self._do(
            name,
            lambda folder: change_alias(
                folder,
                alias,
                version,
                expected=expected,
                reason=reason,
                who=who,
                share_percent=share_percent,
                override=override,
                implied=implied,
            ),
            done,
        )

    def roll_back(self, name: str, *, expected: int | None, reason: str, who: str, done: OnAliases) -> None:
        """Point production at the version before; see `models.aliases.roll_back`, and `change_alias` for `done`.

        The version before is loaded first only where it was unloaded.
        """
        self._do(name, lambda folder: roll_back(folder, expected=expected, reason=reason, who=who), done)

    def _do(self, name: str, job: Callable[[Path], Aliases], done: OnAliases) -> None:
        if self._follower is None or self._repository is None or not re.fullmatch(NAME, name):
            done(ModelNotFound(name, ", ".join(self._registry.names) or "none"))
            return
        folder = self._repository.folder / name
        if not self._follower.do(partial(job, folder), partial(self._changed, name, done)):
            done(LoadsFull(JOBS_LIMIT))

    def _changed(self, name: str, done: OnAliases, result: object) -> None:
        if not isinstance(result, Aliases):
            done(result if isinstance(result, Exception) else TypeError(f"expected aliases, got {result!r}"))
            return
        error = self._aliases_found(name, result)
        done(result if error is None else error)

    def _aliases_found(self, name: str, found: Aliases | AliasesInvalid | None) -> JournalError | None:
        """A model's file has changed."""
        if found == self._files.get(name):
            return None
        self._files[name] = found
        error = self._settle(name, retry=True)
        last = found.changes[-1] if isinstance(found, Aliases) and found.changes else None
        known = self.in_force(name)
        _LOG.warning(
            "aliases changed",
            model=name,
            production=known.production,
            shadow=known.shadow,
            canary=known.meaning("canary"),
            who=None if last is None else last.who,
            reason=None if last is None else last.reason,
        )
        self._tell(AliasStatus(name, self.aliases(name), known))
        return error

    def _settle(self, name: str, *, retry: bool = False) -> JournalError | None:
        """Put a model's aliases in force as far as their versions are loaded, and have the others loaded."""
        aliases = self._files.get(name)
        wanted = in_force(self._registry.versions_of(name), aliases, self.in_force(name))
        try:
            self._roster.point(name, wanted)
        except JournalError as error:
            if name not in self._unsettled:
                _LOG.error("aliases not in force", model=name, why=str(error))
            self._unsettled.add(name)
            return error
        self._unsettled.discard(name)
        if isinstance(aliases, Aliases):
            for version in (aliases.production, aliases.version_of("canary")):
                if version is not None:
                    self._have(name, version, retry=retry)
        return None

    def _have(self, name: str, version: int, *, retry: bool) -> None:
        """Load a version that an alias names, unless it is, or failed and was not named anew."""
        known = self._board.of(name, version)
        failed = known is not None and known.state is VersionState.FAILED
        absent = self._registry.find(name, version) is None and (name, version) not in self._kept_out
        if absent and (retry or not failed):
            self.load(name, version, lambda _: None)

    def _versions_found(self, name: str, found: list[int]) -> None:
        """Versions have appeared, or gone from the disk: what is loaded stays."""
        for version in found:
            if self._board.of(name, version) is None and (name, version) not in self._kept_out:
                self.load(name, version, lambda _: None)

    # ------------------------------------------------------------------------------------------------------------------

    def _tell(self, change: Change) -> None:
        for changed in list(self._watchers):
            changed(change)

    def poll(self) -> None:
        """Take in what other threads have found; a turn of the answering thread, between requests."""
        while self._posted:
            self._posted.popleft()()
        for name in list(self._unsettled):
            self._settle(name)

    def close(self) -> None:
        """End the checker and the threads; what is on its way is given up."""
        if self._loader is not None:
            self._loader.close()
        if self._follower is not None:
            self._follower.close()
