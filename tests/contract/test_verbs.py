"""The line that `tickgate --help` shows without importing a verb is the one that the verb gives of itself."""

from importlib.metadata import EntryPoint, entry_points

import pytest

from tickgate_client.cli import _SUMMARIES, GROUP


@pytest.mark.parametrize("entry", sorted(entry_points(group=GROUP)), ids=lambda entry: entry.name)
def test_each_verb_is_listed_with_its_own_first_line(entry: EntryPoint) -> None:
    command = entry.load()
    assert _SUMMARIES[entry.name] == command.help.partition("\n")[0]
