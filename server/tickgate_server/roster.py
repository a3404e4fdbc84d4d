"""The versions of one engine as they come and go: what each needs beside its reference, and when it is let go of.

A version that comes in gets its number in the book, its index in the journal, the windows of its feature set, a thread
of its own where it is slow, and last its references: then the next request may reach it. One that goes loses its
references first. What is under way ends on it; only then the rest is let go of, and its arrays or its session are freed
by a thread, so that no answer waits for that.

Bounds: `MODELS_LIMIT` versions have a number in the book, those that were loaded once among them. For one more, the
number of the version is taken that was unloaded first; where all are loaded, the load is refused.
"""

import dataclasses
import queue
import time
from collections.abc import Callable
from threading import Thread
from typing import cast

import numpy as np

from tickgate_server.desk import Desk
from tickgate_server.intake import Intake
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.aliases import AliasName
from tickgate_server.models.forest import CompiledForest
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.offload import ModelThread, ModelThreads
from tickgate_server.models.registry import InForce, ModelRegistry
from tickgate_server.risk.book import MODELS_LIMIT

# What the answering thread has let go of is freed so much later: no frame of it can hold the last reference by then.
_FREE_AFTER_S = 0.1
_ALIASES: tuple[AliasName, ...] = ("production", "shadow", "canary")
# What runs a version that is not loaded any more: nothing.
_NOTHING = CompiledForest(
    0,
    np.zeros(0, np.int64),
    np.zeros(0, np.uint64),
    np.zeros(0, np.int64),
    np.zeros((0, 0), np.int64),
    np.zeros(0),
)


class Roster:
    """The versions of one engine; all on the thread that answers.

    Attributes:
        registry: What references mean.
        numbers: Of each version in the book, those among them that no request reaches and that are under way.
        by_number: The version that has a number; of one that was let go of, what is to be known to give its answers
            again.
        threads: Of the versions that are slow.

    Args:
        registry: With what is loaded at the start.
        desk: Whose book it is.
        intake: Whose windows they are.
        journal: Nothing of these versions was appended yet; `tell_start` does. None: there is none.
        threads: With those of the start.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        desk: Desk,
        intake: Intake,
        journal: JournalWriter | None,
        threads: ModelThreads,
    ) -> None:
        self.registry = registry
        self.threads = threads
        self.numbers: dict[LoadedModel, int] = {}
        self.by_number: dict[int, LoadedModel] = {}
        self._desk = desk
        self._intake = intake
        self._journal = journal
        self._under_way: dict[LoadedModel, int] = {}  # runs on threads of their own
        self._leaving: dict[LoadedModel, Callable[[], None]] = {}
        self._let_go: list[LoadedModel] = []
        self._unloaded: dict[int, tuple[str, int]] = {}  # by number, the first first
        self._watchers: list[Callable[[], None]] = []
        self._freeing: queue.SimpleQueue[LoadedModel] | None = None
        for model in registry.models:
            self._number(model)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have a function called after each change of what requests reach or of which versions are kept."""
        self._watchers.append(changed)

    @property
    def kept(self) -> list[LoadedModel]:
        """Every version that may yet be answered with: those that requests reach, and those with runs under way."""
        return [*self.registry.models, *self._leaving]

    # -- coming ------------------------------------------------------------------------------------------------------

    def take_in(self, model: LoadedModel, thread: ModelThread | None = None) -> None:
        """Make a version reachable by its number; aliases stay as they are.

        Args:
            model: That is not reachable; another of its number may be leaving.
            thread: Its own, as `ModelThreads.prepare` gives it.

        Raises:
            ValueError: There are too many versions; nothing changed.
            JournalError: The journal cannot tell of it; nothing changed.
        """
        self._make_room(model)
        index = -1 if self._journal is None else self._journal.add_model(model, clock_ns=self._desk.now_ns())
        self._number(model)
        self._desk.heed(model.name, model.version, index)
        if thread is not None:
            self.threads.add(model, thread)
        self.registry.add(model)
        self._keep_windows()
        self._leaving.pop(model, None)
        self._changed()

    def _make_room(self, model: LoadedModel) -> None:
        if (model.name, model.version) in self._desk.models or len(self._desk.models) < MODELS_LIMIT:
            return
        if not self._unloaded:
            raise ValueError(f"models: {MODELS_LIMIT} versions are loaded, and no more may be")
        oldest = next(iter(self._unloaded))
        self._desk.forget_model(*self._unloaded.pop(oldest))
        self._forget(oldest)

    def _number(self, model: LoadedModel) -> None:
        number = self._desk.add_model(model.name, model.version, model.manifest.allowed_regimes)
        self._forget(number)
        self._unloaded.pop(number, None)
        self.numbers[model] = number
        self.by_number[number] = model

    def _forget(self, number: int) -> None:
        """Let go of what stands for a version that is not loaded."""
        before = self.by_number.pop(number, None)
        if before is not None and before.scorer is _NOTHING and self._journal is not None:
            self._journal.remove_model(before)

    # -- aliases -----------------------------------------------------------------------------------------------------

    def tell_start(self) -> None:
        """Tell the journal what every alias means at a start; its MODEL records went before."""
        for name, known in sorted(self.registry.in_force.items()):
            self._tell(name, known, None)

    def point(self, name: str, wanted: InForce) -> None:
        """Have a model's aliases mean this from the next request on; nothing is done where they do.

        Raises:
            JournalError: The journal cannot tell of it; nothing changed.
        """
        before = self.registry.in_force.get(name, InForce())
        if wanted == before:
            return
        self._tell(name, wanted, before)
        self.registry.point(name, wanted)
        self._changed()

    def point_alias(self, name: str, alias: str, version: int | None, share_percent: float) -> None:
        """The same for one alias, as an ALIAS record has it."""
        before = self.registry.in_force.get(name, InForce())
        self.registry.point(name, before.with_alias(alias, version, share_percent))
        self._changed()

    def _tell(self, name: str, wanted: InForce, before: InForce | None) -> None:
        """Tell the journal what differs; of what there was nothing before, production in any case."""
        if self._journal is None:
            return
        clock_ns = self._desk.now_ns()
        for alias in _ALIASES:
            told = None if before is None and alias == "production" else (before or InForce()).meaning(alias)
            if wanted.meaning(alias) != told:
                self._journal.point_alias(name, alias, *wanted.meaning(alias), clock_ns=clock_ns)

    # -- going -------------------------------------------------------------------------------------------------------

    def drop(self, model: LoadedModel, why: str, gone: Callable[[], None]) -> None:
        """Make a version unreachable from the next request on; what is under way ends on it.

        Args:
            model: Loaded.
            why: What who asks for it is told.
            gone: Called in a turn to come, when nothing is under way on it any more and it was let go of.
        """
        self.registry.remove(model, why)
        self._leaving[model] = gone
        self._changed()

    def unloaded(self, model: LoadedModel) -> None:
        """Let go of a version at once, as a MODEL_UNLOADED record says that it was."""
        self.registry.remove(model, "unloaded")
        self._keep_windows()

    def began(self, model: LoadedModel) -> None:
        """A run of a version began on its thread."""
        self._under_way[model] = self._under_way.get(model, 0) + 1

    def ended(self, model: LoadedModel) -> None:
        """A run ended, or was given up; its answer leaves before the next turn."""
        left = self._under_way.get(model, 0) - 1
        if left > 0:
            self._under_way[model] = left
        else:
            self._under_way.pop(model, None)

    def poll(self) -> None:
        """Let go of what left and has nothing under way; a turn of the answering thread, between requests.

        Raises:
            JournalError: The journal cannot tell of it; the next turn tries again.
        """
        if self._let_go:  # in a turn of its own: who watches has let go of it by now
            freeing = self._freeing or self._start_freeing()
            while self._let_go:
                freeing.put(self._let_go.pop())
        if not self._leaving:
            return
        for model in [model for model in self._leaving if model not in self._under_way]:
            self._let_go_of(model)
            gone = self._leaving.pop(model)
            self._keep_windows()
            self._let_go.append(model)
            gone()
        self._changed()

    def _let_go_of(self, model: LoadedModel) -> None:
        number = self.numbers[model]
        journal = self._journal
        again = self.by_number.get(number) is not model  # the same version was loaded meanwhile
        if journal is not None and not again:
            journal.unload_model(model, clock_ns=self._desk.now_ns())
        stand_in = None if again else dataclasses.replace(model, scorer=_NOTHING)
        if stand_in is not None:
            self.by_number[number] = stand_in
            self._unloaded[number] = (model.name, model.version)
            self._desk.heed(model.name, model.version, -1)
        del self.numbers[model]
        self.threads.retire(model)
        if journal is not None:
            journal.remove_model(model, stand_in)

    def _keep_windows(self) -> None:
        self._intake.keep({model.schema_id: model.features for model in self.kept})

    def _changed(self) -> None:
        for changed in self._watchers:
            changed()

    def _start_freeing(self) -> "queue.SimpleQueue[LoadedModel]":
        self._freeing = freeing = queue.SimpleQueue[LoadedModel]()
        Thread(target=_free, args=(freeing,), name="tickgate-freeing", daemon=True).start()
        return freeing


def _free(models: "queue.SimpleQueue[LoadedModel]") -> None:
    """Hold each version until nobody else can, and let the last reference go here."""
    while True:
        model = cast("LoadedModel | None", models.get())
        time.sleep(_FREE_AFTER_S)
        model = None  # noqa: F841 - this is what frees it
