"""The store's process, which the server keeps running beside itself."""

import json
from collections.abc import Sequence
from pathlib import Path

from tickgate_server.beside import KeptRunning, Program
from tickgate_server.config import Settings

# What is left in a journal is read and written in so long.
DRAIN_S = 8.0


def start_store(settings: Settings, journals: Sequence[Path]) -> KeptRunning | None:
    """Have the store kept, where the settings name one.

    Args:
        settings: The server's.
        journals: Its own, or those of its workers in their order.
    """
    if settings.store.mode == "none" or not journals:
        return None
    arguments = [argument for folder in journals for argument in ("--journal", str(folder))]
    arguments += ["--models", str(settings.models.repository)]
    arguments += ["--log-format", settings.log.format, "--log-level", settings.log.level]
    if settings.store.scheduling == "idle":
        arguments.append("--give-way")
    told = json.dumps(settings.store.with_secrets()).encode() + b"\n"
    return KeptRunning(Program("store", "tickgate_server.store", arguments, DRAIN_S, told=told))
