from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.packages import publish_logistic

# How long an example takes is the machine's business: timings live in bench/.
settings.register_profile("tickgate", deadline=None)
settings.load_profile("tickgate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the campaigns alone, at their full size")


# Files that take long, first: with two workers the last of them would else leave one without work.
LONG = (
    "e2e/",
    "workers/",
    "shadow/",
    "training/test_backends",
    "training/test_stopped",
    "training/test_planted",
    "swaps/",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith(LONG))
    if not config.getoption("--soak"):
        return
    campaigns = [item for item in items if "soak" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in campaigns])
    items[:] = campaigns
    for item in items:
        item.add_marker(pytest.mark.timeout(0))  # it takes as long as it takes


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """Chooses a size: the suite's or the campaign's; a test that asks for this is a campaign with `--soak`."""
    full = pytestconfig.getoption("--soak")
    return lambda suite, campaign: campaign if full else suite


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with one model, `tiny` version 1, and time enough on a busy machine."""
    folder = tmp_path / "models"
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder
