"""An observer that got no core for long relies on idle ones again only after a while."""

import time

import pytest

from tickgate_server.observer import starved
from tickgate_server.observer.starved import LASTS_S, LATE_S, Starved


def test_what_took_long_is_starved_for_a_while_and_what_did_not_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(starved.time, "monotonic", lambda: now[0])
    found = Starved()
    assert not found.now
    found.took(LATE_S)
    assert not found.now
    found.took(LATE_S + 0.01)
    assert found.now
    now[0] += LASTS_S - 0.01
    found.took(0.001)
    assert found.now
    now[0] += 0.01
    assert not found.now
