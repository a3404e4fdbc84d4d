from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.client.client_drivers import AsyncioDriver, SyncDriver
from tests.client.scripted_server import ScriptedServer


@pytest.fixture
def peer() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    server = scripted.start()
    yield scripted
    server.stop(None).wait()


@pytest.fixture(params=[SyncDriver, AsyncioDriver], ids=["sync", "asyncio"])
def driver(request: pytest.FixtureRequest) -> SyncDriver | AsyncioDriver:
    """A client of either kind, one call at a time: both behave the same."""
    return request.param()
