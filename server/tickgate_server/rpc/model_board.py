"""What is told of an engine's models: every version with its state, every alias, and each change to who watches."""

from collections.abc import Callable

from tickgate.v1 import model_pb2 as pb
from tickgate_server.engine import Engine
from tickgate_server.model_operations import Change
from tickgate_server.models.aliases import Aliases, AliasName
from tickgate_server.models.states import VersionState, VersionStatus
from tickgate_server.rpc.health import HealthBoard
from tickgate_server.rpc.methods import Answer, Subscription, parse
from tickgate_server.rpc.model_messages import ALIASES, aliases_message, facts_message, meaning
from tickgate_server.rpc.status import Status, status_of

# Changes that a reader may be behind by; then it is told everything as it is.
BEHIND = 1024

_STATES = {
    VersionState.START: pb.MODEL_STATE_START,
    VersionState.LOADING: pb.MODEL_STATE_LOADING,
    VersionState.READY: pb.MODEL_STATE_READY,
    VersionState.FAILED: pb.MODEL_STATE_FAILED,
    VersionState.UNLOADING: pb.MODEL_STATE_UNLOADING,
    VersionState.GONE: pb.MODEL_STATE_UNLOADED,
}


class ModelBoard:
    """The models of one engine as the contract has them; on the thread that answers.

    Args:
        engine: The one.
        health: What probes are told; kept true.
    """

    def __init__(self, engine: Engine, health: HealthBoard) -> None:
        self._models = engine.models
        self._health = health
        self._readers: set[_Reader] = set()
        self._told = {name: self.aliases(name) for name in self.names()}
        self._look()
        engine.models.subscribe(self._changed)
        # What an alias means to requests changes with the versions that are loaded as well.
        engine.roster.watch(self._look)

    def everything(self, name: str = "") -> pb.ListModelsResponse:
        """Versions and aliases, of one model or of all."""
        versions = [self._message(one) for one in self._models.statuses() if name in {"", one.name}]
        names = [found for found in self.names() if name in {"", found}]
        return pb.ListModelsResponse(versions=versions, aliases=[self.aliases(found) for found in names])

    def names(self) -> list[str]:
        """Of the models that have a version that is known, sorted."""
        return sorted({one.name for one in self._models.statuses()})

    def version(self, name: str, version: int) -> pb.ModelVersionStatus | None:
        """One version; None: it is not known."""
        found = self._models.status(name, version)
        return None if found is None else self._message(found)

    def is_ready(self, name: str, version: int) -> bool:
        """Whether a version is loaded."""
        found = self._models.status(name, version)
        return found is not None and found.state is VersionState.READY

    def aliases(self, name: str, found: Aliases | None = None) -> pb.ModelAliases:
        """The aliases of a model.

        Args:
            name: Of the model.
            found: As they are; None: as the engine knows them.
        """
        return aliases_message(name, found or self._models.aliases(name), self._models.in_force(name).production)

    def meaning(self, name: str, version: int) -> tuple[AliasName, ...]:
        """The aliases that mean a version."""
        return meaning(self._models.aliases(name), self._models.in_force(name).production, version)

    def watch(self, data: bytes, changed: Callable[[], None]) -> Subscription | Status:
        """See `WatchMethod`."""
        request = parse(pb.WatchModelsRequest, data)
        if isinstance(request, Status):
            return request
        reader = _Reader(request.name, changed, self.everything, self._readers.discard)
        self._readers.add(reader)
        return reader

    def _message(self, status: VersionStatus) -> pb.ModelVersionStatus:
        return pb.ModelVersionStatus(
            name=status.name,
            version=status.version,
            state=_STATES[status.state],
            reason=status.reason,
            since_ns=status.since_ns,
            aliases=[ALIASES[alias] for alias in self.meaning(status.name, status.version)],
            facts=None if status.loaded is None else facts_message(status.loaded),
        )

    def _changed(self, change: Change) -> None:
        """A version has another state, or a model's file of aliases has changed."""
        if isinstance(change, VersionStatus):
            self._tell(change.name, pb.ModelChange(version=self._message(change)))
        self._look()

    def _look(self) -> None:
        """Tell who watches of the aliases that are others by now, and probes of what can be asked."""
        serving = {}
        for name in self.names():
            aliases = self.aliases(name)
            serving[name] = aliases.serving > 0
            if aliases != self._told.get(name):
                self._told[name] = aliases
                self._tell(name, pb.ModelChange(aliases=aliases))
        self._health.show(serving)

    def _tell(self, name: str, change: pb.ModelChange) -> None:
        for reader in list(self._readers):
            reader.add(name, change)


class _Reader:
    """One caller that watches: what it has not been told yet.

    Args:
        name: Of the one model that it watches; empty: all.
        changed: To be called when there is news.
        everything: Of one model or of all.
        leave: Called with the reader once the caller is gone.
    """

    def __init__(
        self,
        name: str,
        changed: Callable[[], None],
        everything: Callable[[str], pb.ListModelsResponse],
        leave: Callable[["_Reader"], None],
    ) -> None:
        self._name = name
        self._changed = changed
        self._everything = everything
        self._leave = leave
        self._behind = True  # it knows nothing yet
        self._changes: list[pb.ModelChange] = []

    def add(self, name: str, change: pb.ModelChange) -> None:
        """There is news of a model."""
        if self._name not in {"", name} or self._behind:
            return
        if len(self._changes) < BEHIND:
            self._changes.append(change)
        else:
            self._behind = True
            self._changes.clear()
        self._changed()

    def current(self) -> Answer | None:
        """See `Subscription`."""
        try:
            if self._behind:
                message = pb.WatchModelsResponse(models=self._everything(self._name))
            elif self._changes:
                message = pb.WatchModelsResponse(changes=self._changes)
            else:
                return None
            found = message.SerializeToString()
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            return status_of(error)
        self._behind = False
        self._changes.clear()
        return found

    def close(self) -> None:
        """See `Subscription`."""
        self._leave(self)
