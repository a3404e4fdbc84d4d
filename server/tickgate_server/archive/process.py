"""The archiver's process, which the server keeps running beside itself."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import structlog

from tickgate_server.archive.how import ArchiverSettings
from tickgate_server.beside import KeptRunning, Program
from tickgate_server.config import Settings

# What is left in a journal is archived in so long.
DRAIN_S = 5.0
# One thread for Arrow too. Memory goes back to the system between commits.
_ENVIRONMENT = {"ARROW_IO_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}

_LOG = structlog.get_logger()


def start_archiver(settings: Settings, journals: Sequence[Path]) -> KeptRunning | None:
    """Have the journals archived; None, and the log says so where one was asked for, where they are not to be.

    Args:
        settings: The server's.
        journals: Its own, or those of its workers in their order; empty: none is kept.
    """
    section = settings.archive
    if section.folder is None:
        return None
    if not journals:
        _LOG.warning("nothing archived", why="journal.folder is none")
        return None
    arguments = [argument for folder in journals for argument in ("--journal", str(folder))]
    arguments += ["--archive", str(section.folder), "--settings", json.dumps(asdict(how(settings)))]
    arguments += ["--log-format", settings.log.format, "--log-level", settings.log.level]
    if section.scheduling == "idle":
        arguments.append("--give-way")
    return KeptRunning(Program("archiver", "tickgate_server.archive", arguments, DRAIN_S, _ENVIRONMENT))


def how(settings: Settings) -> ArchiverSettings:
    """What the settings say of archiving."""
    section = settings.archive
    return ArchiverSettings(
        flush_s=section.flush_s,
        flush_rows=section.flush_rows,
        rows_a_file=section.rows_a_file,
        retention_days=section.retention_days,
        merge=section.merge,
        with_ticks=section.ticks,
    )
