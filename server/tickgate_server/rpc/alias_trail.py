"""Who changed an alias and why, and who went past the rules: in journal and log, whether here or in the repository."""

import structlog

from tickgate_server.engine import Engine
from tickgate_server.journal.errors import JournalError
from tickgate_server.journal.layout import ControlKind
from tickgate_server.model_operations import AliasStatus, Change
from tickgate_server.models.aliases import AliasChange

_LOG = structlog.get_logger()


class AliasTrail:
    """Tells journal and log of the changes that aliases' files tell of, each once.

    What an alias means to requests is another record, of the engine; this one decides nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Those from before this server's start are in the file, and in the journal of who served then.
        names = {status.name for status in engine.models.statuses()}
        self._told = {name: engine.models.aliases(name).revision for name in names}
        engine.models.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        if isinstance(change, AliasStatus):
            told = self._told.get(change.name, 0)
            self._told[change.name] = change.aliases.revision
            for one in change.aliases.changes:
                if one.revision > told:
                    self._tell(change.name, one)

    def _tell(self, name: str, one: AliasChange) -> None:
        if one.override:
            _LOG.warning("promotion overridden", model=name, version=one.after, override=one.override, who=one.who)
        journal = self._engine.journal
        if journal is None:
            return
        payload = {"name": name, **one.model_dump(mode="json")}
        try:
            journal.append_control(ControlKind.ALIAS_CHANGED, payload, clock_ns=self._engine.desk.now_ns())
        except JournalError as error:  # the file has it, and no answer depends on this record
            _LOG.error("alias change not journaled", model=name, revision=one.revision, why=str(error))
