"""The one place that wires the parts together, and the life of a server from start to drained."""

import contextlib
import gc
import logging
import os
import sys
import time
from pathlib import Path

import structlog

from tickgate_server.config import Settings
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.errors import ModelNotFound
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.observer.metrics import EngineCollector, MetricsEndpoint
from tickgate_server.rpc.listener import ListenerSettings, choose
from tickgate_server.ticks.instruments import Universe, read_instruments

_LOG = structlog.get_logger()


class RepositoryMissing(Exception):
    """The model repository is not a folder."""

    def __init__(self, repository: Path) -> None:
        super().__init__(f"models.repository: expected a folder of model packages, got {str(repository)!r}")


class DefaultModelMissing(Exception):
    """`models.default` names no model of the repository."""


def configure_logging(settings: Settings) -> None:
    """Structured logs on standard error: for people on a terminal, JSON elsewhere, unless set."""
    console = settings.log.format == "console" or (settings.log.format == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    processors: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        processors.append(structlog.processors.dict_tracebacks)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def load_models(settings: Settings) -> ModelRegistry:
    """Load the repository, and say of each version whether it serves and why not.

    Raises:
        RepositoryMissing: It is not a folder.
    """
    repository = settings.models.repository
    if not repository.is_dir():
        raise RepositoryMissing(repository)
    try:
        registry = load_repository(repository, settings.models.default)
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


def build_engine(settings: Settings, journal: JournalWriter | None = None) -> Engine:
    """An engine with its models, instruments, limits and journal.

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
        ),
        load_models(settings),
        universe,
        settings.risk,
        journal=journal,
    )


def serve(settings: Settings, started: float) -> None:
    """Serve until SIGTERM or SIGINT, then drain; see `rpc.listener.Listener`.

    Args:
        settings: What is in force.
        started: `time.perf_counter()` when the process began its work, for the log's start-up time.

    Raises:
        JournalError: The journal cannot be written, is damaged, or another server has it.
        ListenFailed: The data listener's address cannot be had.
        OSError: The metrics endpoint's address is taken.
    """
    with contextlib.ExitStack() as stack:
        journal = open_journal(settings)
        if journal is not None:
            stack.callback(journal.close)
        _serve(settings, started, build_engine(settings, journal), stack)
    _LOG.info("stopped")


def _serve(settings: Settings, started: float, engine: Engine, stack: contextlib.ExitStack) -> None:
    metrics: MetricsEndpoint | None = None
    if settings.server.metrics_listen:
        collector = EngineCollector(engine.telemetry, engine.registry)
        metrics = MetricsEndpoint(settings.server.metrics_listen, collector)
        stack.callback(metrics.close)

    def on_serving(address: str) -> None:
        # What start-up made stays; the collector need not walk it again.
        gc.collect()
        gc.freeze()
        _LOG.info(
            "serving" if engine.registry.models else "not serving: no model is fit",
            address=address,
            metrics=metrics.address if metrics else None,
            models=engine.registry.names,
            transport=type(listener).__name__,
            grpc_experiments=os.environ.get("GRPC_EXPERIMENTS"),
            clock=settings.clock.mode,
            start_up_s=round(time.perf_counter() - started, 2),
        )

    section = settings.server
    listener = choose(
        section.transport,
        engine,
        ListenerSettings(
            address=section.listen,
            max_message_bytes=section.max_message_bytes,
            max_concurrent_requests=section.max_concurrent_requests,
            drain_s=section.drain_s,
            tls_certificate=section.tls_certificate,
            tls_key=section.tls_key,
            tls_client_ca=section.tls_client_ca,
        ),
    )
    listener.run(on_serving, lambda: _LOG.info("draining", grace_s=section.drain_s))
