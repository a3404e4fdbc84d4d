from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.feeds.market_server import Market, MarketServer


@pytest.fixture
def market() -> Market:
    return Market()


@pytest.fixture
def server(market: Market) -> Iterator[MarketServer]:
    with MarketServer(market) as running:
        yield running
