"""An engine whose models are changed as it answers, in this process: its journal, its answers, its desk's turns."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tests.support.messages import tick

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.model_operations import Change, ModelOperations, Repository
from tickgate_server.models.aliases import Aliases
from tickgate_server.models.registry import load_repository
from tickgate_server.models.states import VersionStatus
from tickgate_server.risk.limits import Limits
from tickgate_server.rpc.answers import Answers
from tickgate_server.rpc.status import Status

START_NS = 1_700_000_000_000_000_000
LATE_S = 200.0
BY = {"reason": "a test", "who": "tester"}
Result = TypeVar("Result")


class Operated:
    """An engine with a repository; checks run on a thread, unless `own_process` says otherwise.

    Attributes:
        changes: What its watchers were told.
    """

    def __init__(
        self,
        folder: Path,
        models: Path,
        *,
        default: str = "",
        lanes: bool = True,
        segment_records: int = 1024,
        **repository: Any,
    ) -> None:
        self.folder = folder
        self.models_folder = models
        self.journal = JournalWriter(folder, segment_records=segment_records)
        self.engine = Engine(
            EngineSettings(capacity=64, replay=True, queue_limit=8),
            load_repository(models, default, inline_limit_us=repository.get("inline_limit_us", 500.0)),
            limits=Limits(max_var="off", max_correlation="off", max_repeats="off"),
            journal=self.journal,
            repository=Repository(models, **{"own_process": False, "follow_s": 0.0, **repository}),
        )
        self.answers = Answers(self.engine)
        self.answers._lane.open &= lanes
        self.lanes = lanes
        self.changes: list[Change] = []
        self.models.subscribe(self.changes.append)
        self._sequence = 0

    @property
    def models(self) -> ModelOperations:
        return self.engine.models

    def turn(self) -> None:
        """A desk's turn, as a listener takes them."""
        self.engine.desk.poll()
        self.answers._lane.open &= self.lanes

    def until(self, there: Callable[[], Result | None]) -> Result:
        """Take turns until something is there."""
        give_up = time.monotonic() + LATE_S
        while not (found := there()):
            assert time.monotonic() < give_up, self.changes
            self.turn()
            time.sleep(0.001)
        return found

    def done(self, ask: Callable[[Callable[[Any], None]], object]) -> Any:
        """What an operation ends with, which is asked for with its `done`."""
        found: list[Any] = []
        ask(found.append)
        return self.until(lambda: found)[0]

    def load(self, name: str, version: int) -> VersionStatus | Exception:
        return self.done(lambda done: self.models.load(name, version, done))

    def unload(self, name: str, version: int, *, force: bool = False) -> VersionStatus | Exception:
        return self.done(lambda done: self.models.unload(name, version, done, force=force))

    def point(self, name: str, version: int | None, *, expected: int | None, **changes: Any) -> Aliases | Exception:
        alias = changes.pop("alias", "production")
        return self.done(
            lambda done: self.models.change_alias(
                name, alias, version, expected=expected, done=done, **{**BY, **changes}
            )
        )

    def roll_back(self, name: str, *, expected: int | None) -> Aliases | Exception:
        return self.done(lambda done: self.models.roll_back(name, expected=expected, done=done, **BY))

    def request(self, model: str = "", symbol: str = "A", price: float | None = None, **changes: Any) -> bytes:
        """The next tick."""
        self._sequence += 1
        price = 100.0 + (self._sequence * 7 % 13) / 10.0 if price is None else price
        message = tick(
            symbol,
            START_NS + self._sequence * 10**8,
            sequence=self._sequence,
            trade=(price, 1.0 + self._sequence % 5),
            quote=(price - 0.05, price + 0.05, 2.0, 3.0),
            model=model,
            **{"budget_us": 50_000_000, **changes},
        )
        return message.SerializeToString()

    def answer(self, data: bytes) -> pb.PredictResponse | Status:
        found = self.answers.predict(data, time.perf_counter_ns(), 0)
        return pb.PredictResponse.FromString(found) if isinstance(found, bytes) else found

    def ask(self, model: str = "", symbol: str = "A", **changes: Any) -> pb.PredictResponse | Status:
        """Send the next tick."""
        return self.answer(self.request(model, symbol, **changes))

    def version(self, model: str = "", symbol: str = "A") -> int:
        """Of what answers."""
        found = self.ask(model, symbol)
        assert isinstance(found, pb.PredictResponse), found
        return found.model.version

    def states(self, name: str, version: int) -> list[str]:
        """Of a version, as they were told."""
        told = [change for change in self.changes if isinstance(change, VersionStatus)]
        return [change.state.value for change in told if (change.name, change.version) == (name, version)]

    def close(self) -> None:
        self.answers.close()
        self.journal.close()


def copied(package: Path, version: int) -> Path:
    """A package published before, again under another version, whose checks it passes."""
    folder = package.parent / str(version)
    beside = package.parent / f".incoming-{version}"
    shutil.copytree(package, beside)
    manifest = beside / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"version": {package.name},', f'"version": {version},'))
    beside.rename(folder)
    return folder


def bits(value: float) -> int:
    return int(np.float64(value).view(np.uint64))
