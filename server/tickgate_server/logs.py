"""Structured logs on standard error, the same for a server and its observer."""

import logging
import sys

import structlog

from tickgate_server.config import Settings


def configure_logging(settings: Settings) -> None:
    """As `configure`, with what the settings say."""
    configure(settings.log.format, settings.log.level, settings.worker.index if settings.worker.count > 1 else None)


def configure(form: str, level: str, worker: int | None = None) -> None:
    """Set up structlog for this process.

    Args:
        form: `console`, `json`, or `auto`: for people on a terminal, JSON elsewhere.
        level: `debug`, `info`, `warning` or `error`.
        worker: Index that every line carries, for one of several workers.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    processors: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        processors.append(_worker(worker))
    if not console:
        processors.append(structlog.processors.dict_tracebacks)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # A line in one write: server, workers and observer share standard error.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def _worker(index: int) -> structlog.types.Processor:
    def add(
        logger: structlog.types.WrappedLogger, method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        del logger, method
        event.setdefault("worker", index)
        return event

    return add
