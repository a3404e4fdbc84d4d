"""The one place that wires the parts together, and the life of a server from start to drained."""

import contextlib
import gc
import os
import signal
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from threading import get_native_id
from typing import Protocol

import structlog

from tickgate_server import control_block
from tickgate_server.archive.process import start_archiver
from tickgate_server.config import Settings, admin_address
from tickgate_server.control_block import ControlBlockReader
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.errors import RequestError
from tickgate_server.features.fundamentals_feed import FundamentalsFeed
from tickgate_server.fundamentals_sources import fundamentals_source
from tickgate_server.ingest.ingestion import IngestSettings
from tickgate_server.journal.errors import JournalError
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.model_operations import Repository
from tickgate_server.models.checking import load_in_parallel
from tickgate_server.models.errors import ModelNotFound
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.observer.address import split_address
from tickgate_server.observer.process import ObserverProcess
from tickgate_server.risk.book import FRESH
from tickgate_server.risk.data import FILE_NAME as RISK_DATA_FILE
from tickgate_server.risk.data import read as read_risk_data
from tickgate_server.risk.data import write as write_risk_data
from tickgate_server.risk.feed import RiskDataFeed
from tickgate_server.risk.limits import Limits, LimitsFileInvalid, read_limits
from tickgate_server.rpc.admin import ReadLimits
from tickgate_server.rpc.listener import Bound, ListenerSettings, choose
from tickgate_server.rpc.models import PromotionTerms
from tickgate_server.rpc.services import Extension, Services
from tickgate_server.rpc.topology import Topology, reachable
from tickgate_server.scheduling import run_first
from tickgate_server.shadow.process import start_shadow_scorer
from tickgate_server.store.process import start_store
from tickgate_server.store.warm_start import begin_warm_start
from tickgate_server.ticks.instruments import Universe, read_instruments
from tickgate_server.worker_link import WorkerLink

_LOG = structlog.get_logger()
# How long a server waits for the observer to vouch for the first risk data; then it serves, reducing orders only.
_RISK_DATA_S = 1.0
_RISK_DATA_PAUSE_S = 0.01


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
        registry = load_repository(
            repository,
            settings.models.default,
            inline_limit_us=settings.models.inline_limit_us,
            load_all=load_in_parallel,
        )
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
        FundamentalsInvalid: As `feed_fundamentals`.
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
            feature_age_limit_ns=int(settings.clock.features_s * 1e9),
            price_jump_sigmas=settings.ticks.price_jump_sigmas,
            price_jump_least=settings.ticks.price_jump_least,
            worker=settings.worker.index,
            workers=settings.worker.count,
            queue_limit=settings.models.queue_limit,
            standing_limit=settings.models.standing_limit,
            continuation_gap_ns=int(settings.store.continuation_gap_s * 1e9),
        ),
        load_models(settings),
        universe,
        limits_in_force(settings),
        journal=journal,
        control=control,
        feed=RiskDataFeed(journal.folder) if journal is not None and control is not None else None,
        kill_file=settings.desk.kill_file,
        fsync_reports=settings.desk.fsync_reports,
        fundamentals=feed_fundamentals(settings),
        repository=Repository(
            settings.models.repository,
            inline_limit_us=settings.models.inline_limit_us,
            load_limit_s=settings.models.load_limit_s,
            follow_s=settings.models.follow_s,
            watch=settings.models.watch,
        ),
        ingest=ingest_settings(settings),
    )


def ingest_settings(settings: Settings) -> IngestSettings:
    """How published ticks are taken in."""
    section = settings.ingest
    windows_ns = {name: int(feed.reorder_window_ms * 1e6) for name, feed in section.feeds.items()}
    return IngestSettings(
        queue_ticks=section.queue_ticks,
        conflate=section.conflate,
        windows_ns={name: window_ns for name, window_ns in windows_ns.items() if window_ns},
        window_ticks=section.window_ticks,
        slice_ns=section.slice_us * 1000,
    )


def feed_fundamentals(settings: Settings) -> FundamentalsFeed | None:
    """What reads the fundamentals that the settings name, with the first of them; None where they name none.

    Raises:
        FundamentalsInvalid: They cannot be used, and the journal's folder has none that was in force before.
    """
    section = settings.fundamentals
    if not section.named:
        return None
    return FundamentalsFeed(fundamentals_source(settings), settings.journal.folder, section.refresh_s)


def limits_in_force(settings: Settings) -> Limits:
    """The limits that the settings name, of the whole desk.

    Raises:
        LimitsFileInvalid: The file cannot be used.
    """
    file = settings.desk.limits_file
    return settings.risk if file is None else read_limits(file)


def place_risk_data(settings: Settings) -> None:
    """Put the first risk data where the observer begins with them, unless it has left newer ones there.

    Raises:
        RiskDataInvalid: The file that `desk.risk_data` names cannot be used.
        OSError: It cannot be read, or not be copied.
    """
    folder, file = settings.journal.folder, settings.desk.risk_data
    given = file or settings.models.repository / RISK_DATA_FILE
    if folder is None or (file is None and not given.is_file()):
        return
    target = folder / RISK_DATA_FILE
    data = read_risk_data(given)
    if target.exists() and target.stat().st_mtime_ns >= given.stat().st_mtime_ns:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_risk_data(target, data)
    _LOG.info("first risk data", file=str(given), symbols=len(data.symbols), as_of_ns=data.as_of_ns)


def promotion_terms(settings: Settings) -> PromotionTerms:
    """What versions are held to that are to be production; shadows' records are beside the journal of all workers."""
    folder = settings.journal.folder
    if folder is not None and settings.worker.count > 1:
        folder = folder.parent
    return PromotionTerms(settings.models.repository, folder, settings.promotion)


def serve(
    settings: Settings, started: float, link: WorkerLink | None = None, read_again: ReadLimits | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; see `rpc.listener.Listener`.

    Args:
        settings: What is in force.
        started: `time.perf_counter()` when the process began its work, for the log's start-up time.
        link: To the supervisor, for one of several workers.
        read_again: What ReloadLimits puts in force, those of the whole server; None: what the settings say.

    Raises:
        JournalError: The journal cannot be written, is damaged, or another server has it.
        ListenFailed: The address of a listener cannot be had.
        RealtimeRefused: The system does not let threads have `server.realtime_priority`.
        ObserverNotStarted: The observer did not come up, because its endpoint's address is taken, say.
        LimitsFileInvalid: As `limits_in_force`.
        RiskDataInvalid: As `place_risk_data`.
        FundamentalsInvalid: As `feed_fundamentals`.
        ValueError: As `start_observer`.
        SupervisorGone: There is nobody to report to.
    """
    with contextlib.ExitStack() as stack:
        journal = open_journal(settings)
        if journal is not None:
            stack.callback(journal.close)
        place_risk_data(settings)
        # Its start-up is the models' too: both take about a second. Workers have theirs of the supervisor.
        observer = start_observer(settings) if link is None else None
        if observer is not None:
            stack.callback(observer.close)
        shadow = start_shadow_scorer(settings, [] if journal is None else [journal.folder]) if link is None else None
        if shadow is not None:
            stack.callback(shadow.close)
        archiver = start_archiver(settings, [] if journal is None else [journal.folder]) if link is None else None
        if archiver is not None:
            stack.callback(archiver.close)
        store = start_store(settings, [] if journal is None else [journal.folder]) if link is None else None
        if store is not None:
            stack.callback(store.close)
        warm_start = begin_warm_start(settings)
        control = None
        if settings.journal.folder is not None and settings.observer.mode != "none":
            control_block.create(settings.journal.folder / control_block.FILE_NAME)
            control = ControlBlockReader(settings.journal.folder / control_block.FILE_NAME)
        engine = build_engine(settings, journal, control)
        if warm_start is not None:
            warm_start.give(engine)
        _serve(settings, started, engine, observer, link, read_again or (lambda: limits_in_force(settings)))
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

        controls = [folder / control_block.FILE_NAME]
        models, alerts = settings.models.repository, settings.alerts
        return ObserverThread(
            Observer([folder], controls, listen, risk=settings.risk_values, models=models, alerts=alerts)
        )
    return ObserverProcess(
        [folder],
        listen,
        log_format=settings.log.format,
        log_level=settings.log.level,
        risk=settings.risk_values,
        models=settings.models.repository,
        alerts=settings.alerts,
    )


def open_inference(settings: Settings) -> Extension | None:
    """The Open Inference Protocol over the repository, loading its models from here on; None where it is off."""
    section = settings.inference
    if not section.enabled:
        return None
    # Imported here: its messages are not for a process that has tritonclient's, nor for one that has no use for them.
    from tickgate_server.models.plain_repository import PlainRepository  # noqa: PLC0415
    from tickgate_server.rpc.inference.service import Inference, InferenceBounds  # noqa: PLC0415

    bounds = InferenceBounds(
        threads=section.threads,
        queue_limit=section.queue_limit,
        longest_ns=int(section.longest_s * 1e9),
        answer_bytes=section.max_answer_bytes,
    )
    repository = PlainRepository(settings.models.repository, load_all=section.load == "all")
    return Inference(repository, bounds, version("tickgate"))


def _await_risk_data(settings: Settings, engine: Engine) -> None:
    """Where there are risk data, begin with them: the observer vouches for them within a moment of its start."""
    folder = settings.journal.folder
    if folder is None or settings.observer.mode == "none" or not (folder / RISK_DATA_FILE).is_file():
        return
    give_up = time.monotonic() + _RISK_DATA_S
    engine.desk.poll()
    while not engine.desk.book.state[FRESH] and time.monotonic() < give_up:
        time.sleep(_RISK_DATA_PAUSE_S)
        engine.desk.poll()


def _serve(
    settings: Settings,
    started: float,
    engine: Engine,
    observer: _Observer | None,
    link: WorkerLink | None,
    read_limits: ReadLimits,
) -> None:
    metrics = observer.ready() if observer is not None else None
    _await_risk_data(settings, engine)

    def on_bound(bound: Bound) -> Topology:
        own = [reachable(address, settings.server.advertise_host) for address in (bound.data, bound.service)]
        listening = {"listen": bound.data, "service_listen": bound.service, "admin_listen": bound.admin or "none"}
        epoch, found = (uuid.uuid4().hex[:12], [own]) if link is None else link.bound(listening, own)
        addresses, services = zip(*found, strict=True)
        return Topology(epoch, addresses, settings.worker.index, services)

    def on_serving(bound: Bound) -> None:
        # What start-up made stays; the collector need not walk it again.
        gc.collect()
        gc.freeze()
        _LOG.info(
            "serving" if engine.registry.models else "not serving: no model is fit",
            address=bound.data,
            service=bound.service or None,
            admin=bound.admin or None,
            metrics=metrics,
            models=engine.registry.names,
            transport=type(listener).__name__,
            grpc_experiments=os.environ.get("GRPC_EXPERIMENTS"),
            clock=settings.clock.mode,
            start_up_s=round(time.perf_counter() - started, 2),
        )
        if link is not None:
            link.serving()

    def reload() -> None:
        try:
            engine.desk.change_limits(read_limits(), reason="SIGHUP", who="signal")
        except (LimitsFileInvalid, RequestError, JournalError) as error:
            _LOG.error("limits not reloaded", why=str(error))

    signal.signal(signal.SIGHUP, lambda *_: engine.desk.ask(reload))
    section = settings.server
    if section.realtime_priority:
        run_first([get_native_id(), *([engine.timekeeper] if engine.timekeeper else [])], section.realtime_priority)
    listener = choose(
        section.transport,
        engine,
        ListenerSettings(
            address=section.listen,
            service_address=section.service_listen,
            admin_address=admin_address(settings),
            max_message_bytes=section.max_message_bytes,
            max_concurrent_requests=section.max_concurrent_requests,
            busy_poll_us=section.busy_poll_us,
            drain_s=section.drain_s,
            tls_certificate=section.tls_certificate,
            tls_key=section.tls_key,
            tls_client_ca=section.tls_client_ca,
        ),
        Services(
            engine,
            read_limits,
            promotion_terms(settings),
            worker=settings.worker.index,
            workers=settings.worker.count,
            extension=open_inference(settings),
        ),
    )
    listener.run(on_bound, on_serving, lambda: _LOG.info("draining", grace_s=section.drain_s))
