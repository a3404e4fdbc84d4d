"""The one place that wires the parts together, and the life of a server from start to drained."""

import contextlib
import gc
import os
import time
import uuid
from pathlib import Path
from threading import get_native_id
from typing import Protocol

import structlog

from tickgate_server import control_block
from tickgate_server.config import Settings
from tickgate_server.control_block import ControlBlockReader
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.errors import ModelNotFound
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.observer.address import split_address
from tickgate_server.observer.process import ObserverProcess
from tickgate_server.rpc.listener import ListenerSettings, choose
from tickgate_server.rpc.topology import Topology, reachable
from tickgate_server.scheduling import run_first
from tickgate_server.ticks.instruments import Universe, read_instruments
from tickgate_server.worker_link import WorkerLink

_LOG = structlog.get_logger()


class RepositoryMissing(Exception):
    """The model repository is not a folder."""

    def __init__(self, repository: Path) -> None:
        super().__init__(f"models.repository: expected a folder of model packages, got {str(repository)!r}")


class DefaultModelMissing(Exception):
    """`models.default` names no model of the repository."""


def load_models(settings: Settings) -> ModelRegistry:
    """Load the repository, and say of each version whether it serves and why not.

    Raises:
        RepositoryMissing: It is not a folder.
    """
    repository = settings.models.repository
    if not repository.is_dir():
        raise RepositoryMissing(repository)
    try:
        registry = load_repository(repository, settings.models.default, inline_limit_us=settings.models.inline_limit_us)
    except ModelNotFound as error:
        raise DefaultModelMissing(f"models.default: {error}") from error
    for model in registry.models:
        _LOG.info(
            "model loaded",
            model=model.name,
            version=model.version,
            schema_id=model.schema_id,
            engine="onnxruntime" if model.not_compiled else "compiled forest",
            not_compiled=model.not_compiled or None,
            thread="its own" if model.slow_session else "that of requests",
            warm_up_us_p99=round(model.warm_up_us_p99, 1),
        )
    for refused in registry.refused:
        _LOG.error(
            "model refused",
            model=refused.name,
            version=refused.version,
            check=type(refused.error).__name__,
            file=str(refused.error.path),
            why=refused.error.why,
        )
    return registry


def open_journal(settings: Settings) -> JournalWriter | None:
    """The journal that the settings name, recovered; None where they name none. Says what was found.

    Raises:
        JournalError: It cannot be written, is damaged, or another server has it.
    """
    section = settings.journal
    if section.folder is None:
        return None
    journal = JournalWriter(
        section.folder, segment_records=section.segment_records, retained_segments=section.retained_segments
    )
    found = journal.recovery
    _LOG.info("journal opened", folder=str(section.folder), next_sequence=found.next_sequence, segments=found.segments)
    if found.cut is not None:
        _LOG.warning("journal cut", segment=found.cut.segment, record=found.cut.record, why=found.cut.why)
    return journal


def build_engine(
    settings: Settings, journal: JournalWriter | None = None, control: ControlBlockReader | None = None
) -> Engine:
    """An engine with its models, instruments, limits, journal and control block.

    Raises:
        RepositoryMissing: As `load_models`.
        InstrumentFileInvalid: As `read_instruments`.
        ValueError: More instruments than capacity.
    """
    file = settings.instruments.file
    universe = Universe(read_instruments(file) if file else {}, settings.instruments.closed)
    return Engine(
        EngineSettings(
            capacity=settings.instruments.capacity,
            replay=settings.clock.mode == "replay",
            future_limit_ns=int(settings.clock.future_limit_s * 1e9),
            stale_limit_ns=int(settings.clock.stale_limit_s * 1e9),
            worker=settings.worker.index,
            workers=settings.worker.count,
            queue_limit=settings.models.queue_limit,
            standing_limit=settings.models.standing_limit,
        ),
        load_models(settings),
        universe,
        settings.risk,
        journal=journal,
        control=control,
    )


def serve(settings: Settings, started: float, link: WorkerLink | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; see `rpc.listener.Listener`.

    Args:
        settings: What is in force.
        started: `time.perf_counter()` when the process began its work, for the log's start-up time.
        link: To the supervisor, for one of several workers.

    Raises:
        JournalError: The journal cannot be written, is damaged, or another server has it.
        ListenFailed: The data listener's address cannot be had.
        RealtimeRefused: The system does not let threads have `server.realtime_priority`.
        ObserverNotStarted: The observer did not come up, because its endpoint's address is taken, say.
        ValueError: As `start_observer`.
        SupervisorGone: There is nobody to report to.
    """
    with contextlib.ExitStack() as stack:
        journal = open_journal(settings)
        if journal is not None:
            stack.callback(journal.close)
        # Its start-up is the models' too: both take about a second. Workers have theirs of the supervisor.
        observer = start_observer(settings) if link is None else None
        if observer is not None:
            stack.callback(observer.close)
        control = None
        if settings.journal.folder is not None and settings.observer.mode != "none":
            control_block.create(settings.journal.folder / control_block.FILE_NAME)
            control = ControlBlockReader(settings.journal.folder / control_block.FILE_NAME)
        _serve(settings, started, build_engine(settings, journal, control), observer, link)
    _LOG.info("stopped")


class _Observer(Protocol):
    """An observer in a process of its own, or in a thread of this one."""

    def ready(self) -> str | None:
        """Wait until it observes; where it serves metrics."""

    def close(self) -> None:
        """Let it take in what is left in the journal, and end it."""


def start_observer(settings: Settings) -> _Observer | None:
    """Start what follows the journal; None, and the log says so, where there is no journal or none is wanted.

    Raises:
        ControlBlockLocked: In thread mode, another observer follows this journal.
        MetricsAddressTaken: In thread mode, the endpoint's address cannot be had.
        ValueError: It is no `host:port`.
        OSError: The process cannot be started.
    """
    folder, listen = settings.journal.folder, settings.server.metrics_listen
    if listen:
        split_address(listen)
    if folder is None or settings.observer.mode == "none":
        _LOG.warning("no metrics", why="journal.folder is none" if folder is None else "observer.mode is none")
        return None
    # Before the engine's reader and the observer's writer, which then have the same file.
    control_block.create(folder / control_block.FILE_NAME)
    if settings.observer.mode == "thread":
        # Imported here: it knows Prometheus, which a server has no use for otherwise.
        from tickgate_server.observer.service import Observer, ObserverThread  # noqa: PLC0415

        return ObserverThread(Observer([folder], [folder / control_block.FILE_NAME], listen))
    return ObserverProcess([folder], listen, log_format=settings.log.format, log_level=settings.log.level)


def _serve(
    settings: Settings, started: float, engine: Engine, observer: _Observer | None, link: WorkerLink | None
) -> None:
    metrics = observer.ready() if observer is not None else None

    def on_bound(address: str) -> Topology:
        own = reachable(address, settings.server.advertise_host)
        epoch, addresses = (uuid.uuid4().hex[:12], [own]) if link is None else link.bound(address, own)
        return Topology(epoch, addresses, settings.worker.index)

    def on_serving(address: str) -> None:
        # What start-up made stays; the collector need not walk it again.
        gc.collect()
        gc.freeze()
        _LOG.info(
            "serving" if engine.registry.models else "not serving: no model is fit",
            address=address,
            metrics=metrics,
            models=engine.registry.names,
            transport=type(listener).__name__,
            grpc_experiments=os.environ.get("GRPC_EXPERIMENTS"),
            clock=settings.clock.mode,
            start_up_s=round(time.perf_counter() - started, 2),
        )
        if link is not None:
            link.serving(address)

    section = settings.server
    if section.realtime_priority:
        run_first([get_native_id(), *([engine.timekeeper] if engine.timekeeper else [])], section.realtime_priority)
    listener = choose(
        section.transport,
        engine,
        ListenerSettings(
            address=section.listen,
            max_message_bytes=section.max_message_bytes,
            max_concurrent_requests=section.max_concurrent_requests,
            busy_poll_us=section.busy_poll_us,
            drain_s=section.drain_s,
            tls_certificate=section.tls_certificate,
            tls_key=section.tls_key,
            tls_client_ca=section.tls_client_ca,
        ),
    )
    listener.run(on_bound, on_serving, lambda: _LOG.info("draining", grace_s=section.drain_s))
