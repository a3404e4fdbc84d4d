"""The supervisor of `tickgate serve --workers N`: starts the workers, tells each where all are, keeps and ends them.

A worker is a whole server with its own listener, journal and symbols; it shares nothing with the others, so nothing
between a request and its answer waits for another process. The first is started before the others: what is wrong with
the settings is then said once, and kernels are compiled once. No worker takes calls before all have an address, and one
observer follows all journals. A worker that ends unasked is started again where it listened before; meanwhile its
symbols are UNAVAILABLE.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from tickgate_server.archive.process import start_archiver
from tickgate_server.config import Settings, admin_address, worker_address
from tickgate_server.observer.process import ObserverProcess
from tickgate_server.shadow.process import start_shadow_scorer
from tickgate_server.store.process import start_store
from tickgate_server.worker_link import encode

_LOG = structlog.get_logger()

# A worker that ends unasked is started again after so long, twice as long each time, up to the longest; one that has
# served begins anew.
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0
# Beyond the time that requests in flight are given, a worker has so long to end before it is killed.
_END_S = 10.0


def worker_settings(settings: Settings, index: int, listening: Mapping[str, str]) -> dict[str, Any]:
    """One worker's settings, as JSON has them.

    Args:
        settings: The server's.
        index: The worker's.
        listening: Where it listens, by the names of `settings.server`; see `first_addresses`.
    """
    tree = settings.model_dump(mode="json")
    count = settings.server.workers
    tree["server"] |= {**listening, "metrics_listen": "", "workers": 1}
    tree["store"] = settings.store.with_secrets()
    tree["worker"] = {"index": index, "count": count}
    if settings.journal.folder is not None:
        tree["journal"]["folder"] = str(journal_folder(settings.journal.folder, index))
    return tree


def first_addresses(settings: Settings, index: int) -> dict[str, str]:
    """Where a worker is to listen, before it has taken ports."""
    section = settings.server
    named = {"listen": section.listen, "service_listen": section.service_listen, "admin_listen": section.admin_listen}
    return {
        key: listen if listen in {"", "none"} else worker_address(listen, index, key) for key, listen in named.items()
    }


def admin_addresses(settings: Settings) -> list[str]:
    """The admin listener of each worker, or of the one process; empty texts where there is none."""
    if settings.server.workers == 1:
        return [admin_address(settings)]
    trees = [worker_settings(settings, i, first_addresses(settings, i)) for i in range(settings.server.workers)]
    return [admin_address(Settings(**tree)) for tree in trees]


def journal_folder(folder: Path, index: int) -> Path:
    """One worker's journal, in the server's folder."""
    return folder / f"worker-{index}"


def supervise(settings: Settings) -> int:
    """Run the workers until SIGTERM or SIGINT, then drain them.

    Returns:
        The exit status: 0 if every worker ended with 0.

    Raises:
        ObserverNotStarted: The observer did not come up, because its endpoint's address is taken, say.
        OSError: Its process cannot be started.
        ValueError: It is to be a thread, and there is no one process to have it in.
    """
    if settings.observer.mode == "thread":
        raise ValueError("observer.mode: expected process or none with several workers, got thread")
    return asyncio.run(_Supervisor(settings).run())


class _Supervisor:
    """What all workers have in common."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.epoch = uuid.uuid4().hex[:12]
        self.stopping = asyncio.Event()
        self.first_bound = asyncio.Event()
        self.all_bound = asyncio.Event()
        self.observed = asyncio.Event()  # or nobody is to observe
        self.ended = asyncio.Event()
        self.metrics: str | None = None
        self._said = False
        self.workers = [_Worker(self, index) for index in range(settings.server.workers)]

    async def run(self) -> int:
        """See `supervise`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        keeping = [asyncio.create_task(worker.keep()) for worker in self.workers]
        observing = asyncio.create_task(self._observe())
        processes = (self._score_shadows(), self._archive(), self._keep_store())
        beside = [asyncio.create_task(process) for process in processes]
        told = asyncio.create_task(self.stopping.wait())
        try:
            # The others end by themselves only where they could not be started at all.
            await asyncio.wait([told, *keeping, observing], return_when=asyncio.FIRST_COMPLETED)
            self.stopping.set()
            _LOG.info("stopping workers")
            for worker in self.workers:
                worker.stop()
            await asyncio.wait(keeping, timeout=self.settings.server.drain_s + _END_S)
        finally:
            for worker in self.workers:
                worker.kill()
        statuses = await asyncio.gather(*keeping)
        self.ended.set()
        await asyncio.gather(observing, *beside)
        _LOG.info("workers stopped", statuses=statuses)
        return 0 if not any(statuses) else 1

    def _reload(self) -> None:
        for worker in self.workers:
            worker.reload()

    async def _observe(self) -> None:
        """Have one observer follow all journals, from when they are there until all workers have ended."""
        settings = self.settings
        folder = settings.journal.folder
        if not await self.reached(self.all_bound):
            return
        if folder is None or settings.observer.mode == "none":
            _LOG.warning("no metrics", why="journal.folder is none" if folder is None else "observer.mode is none")
            self.observed.set()
            await self.stopping.wait()
            return
        journals = [journal_folder(folder, worker.index) for worker in self.workers]
        observer = await asyncio.to_thread(
            ObserverProcess,
            journals,
            settings.server.metrics_listen,
            log_format=settings.log.format,
            log_level=settings.log.level,
            risk=settings.risk_values,
            models=settings.models.repository,
            alerts=settings.alerts,
        )
        try:
            self.metrics = await asyncio.to_thread(observer.ready)
            self.observed.set()
            await self.ended.wait()
        finally:
            await asyncio.to_thread(observer.close)

    async def _score_shadows(self) -> None:
        """Have one scorer follow all journals likewise, while there is a shadow; nothing waits for it."""
        folder = self.settings.journal.folder
        if not await self.reached(self.all_bound):
            return
        journals = [] if folder is None else [journal_folder(folder, worker.index) for worker in self.workers]
        shadow = start_shadow_scorer(self.settings, journals)
        if shadow is not None:
            await self.ended.wait()
            await asyncio.to_thread(shadow.close)

    async def _archive(self) -> None:
        """Have all journals archived likewise."""
        folder = self.settings.journal.folder
        if not await self.reached(self.all_bound):
            return
        journals = [] if folder is None else [journal_folder(folder, worker.index) for worker in self.workers]
        archiver = start_archiver(self.settings, journals)
        if archiver is not None:
            await self.ended.wait()
            await asyncio.to_thread(archiver.close)

    async def _keep_store(self) -> None:
        """Have one process keep the store by all journals, where there is to be one; nothing waits for it."""
        folder = self.settings.journal.folder
        if not await self.reached(self.all_bound):
            return
        journals = [] if folder is None else [journal_folder(folder, worker.index) for worker in self.workers]
        store = start_store(self.settings, journals)
        if store is not None:
            await self.ended.wait()
            await asyncio.to_thread(store.close)

    def bound(self) -> None:
        """A worker has an address."""
        self.first_bound.set()
        if all(worker.reachable for worker in self.workers):
            self.all_bound.set()

    def serving(self) -> None:
        """A worker takes calls."""
        if not self._said and all(worker.serving for worker in self.workers):
            self._said = True
            addresses = [worker.listening["listen"] for worker in self.workers]
            _LOG.info(
                "workers serving",
                address=addresses[0],
                addresses=addresses,
                service=[worker.listening["service_listen"] for worker in self.workers],
                admin=[worker.listening["admin_listen"] for worker in self.workers],
                metrics=self.metrics,
                epoch=self.epoch,
            )

    async def reached(self, event: asyncio.Event) -> bool:
        """Wait for an event; False if the server stops first."""
        waiting = [asyncio.create_task(one.wait()) for one in (event, self.stopping)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return not self.stopping.is_set()


class _Worker:
    """One worker: the process that runs now, and those that come after it.

    Attributes:
        index: Its own, from 0.
        listening: Where it listens, by the names of `settings.server`; once it did, with the ports that it got.
        reachable: Where callers find it, its data and its service listener; empty until it first listened.
        serving: It takes calls.
    """

    def __init__(self, supervisor: _Supervisor, index: int) -> None:
        self._supervisor = supervisor
        self.index = index
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.listening = first_addresses(supervisor.settings, index)
        self.reachable: list[str] = []
        self.serving = False

    async def keep(self) -> int:
        """Run one process after the other; the exit status of the last, once the server stops.

        One that never got as far as to listen is not started again: what is wrong will not pass by itself.
        """
        supervisor = self._supervisor
        if self.index and not await supervisor.reached(supervisor.first_bound):
            return 0
        delay_s = FIRST_DELAY_S
        while True:
            try:
                status = await self._live()
            except OSError as error:  # no process, no sockets: the machine is short of something, perhaps not for long
                _LOG.error("worker not started", worker=self.index, why=str(error))
                status = 1
            if supervisor.stopping.is_set() or not self.reachable:
                return status
            if self.serving:
                delay_s = FIRST_DELAY_S
                self.serving = False
            _LOG.error("worker ended unasked", worker=self.index, status=status, restart_in_s=delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(supervisor.stopping.wait(), delay_s)
            if supervisor.stopping.is_set():
                return status
            delay_s = min(delay_s * 2.0, LONGEST_DELAY_S)

    async def _live(self) -> int:
        """Start a process and see it to its end; its exit status, negative for a signal."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = (sys.executable, "-m", "tickgate_server.commands", "--worker-link", str(theirs.fileno()))
            # A group of its own: what a terminal sends, it sends to the supervisor alone.
            process = await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),), process_group=0)
        self._process = process
        _LOG.info("worker started", worker=self.index, pid=process.pid)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        if self._supervisor.stopping.is_set():
            self.stop()
        try:
            await self._converse(reader, self._writer)
        except ConnectionError as error:  # it ended before it had read everything: its status says the rest
            _LOG.warning("worker hung up", worker=self.index, why=str(error))
        status = await process.wait()
        self._writer.close()
        return status

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See `worker_link`; returns when the worker has hung up."""
        supervisor = self._supervisor
        settings = worker_settings(supervisor.settings, self.index, self.listening)
        writer.write(encode({"settings": settings, "supervisor": os.getpid()}))
        while line := await reader.readline():
            message = json.loads(line)
            if "bound" in message:
                self.listening, self.reachable = message["bound"], message["reachable"]
                supervisor.bound()
                if await supervisor.reached(supervisor.observed):
                    addresses = [worker.reachable for worker in supervisor.workers]
                    writer.write(encode({"epoch": supervisor.epoch, "addresses": addresses}))
            else:
                self.serving = True
                supervisor.serving()

    def stop(self) -> None:
        """Tell the process to drain and end; one that waits for the topology learns that it will not come."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
        if self._writer is not None and not self.serving:
            self._writer.close()

    def reload(self) -> None:
        """Have the process read its limits again."""
        if self._process is not None and self._process.returncode is None and self.serving:
            self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End the process now, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            _LOG.error("worker killed: it did not end in time", worker=self.index, pid=self._process.pid)
            self._process.kill()
