from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.packages import publish_logistic

# How long an example takes is the machine's business: timings live in bench/.
settings.register_profile("tickgate", deadline=None)
settings.load_profile("tickgate")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with one model, `tiny` version 1, and time enough on a busy machine."""
    folder = tmp_path / "models"
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder
