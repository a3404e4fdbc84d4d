"""How journals are archived. By itself, so that a server which starts an archiver has no Arrow in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArchiverSettings:
    """How it archives; see `config.ArchiveSection`.

    Attributes:
        flush_s: Longest that a row waits for its commit.
        flush_rows: Most rows of a journal that wait.
        rows_a_file: Most of a merged file, about.
        retention_days: Days that are kept; 0: all.
        merge: Whether small files are merged.
        with_ticks: Whether published ticks are kept.
    """

    flush_s: float = 30.0
    flush_rows: int = 131_072
    rows_a_file: int = 4_194_304
    retention_days: int = 0
    merge: bool = True
    with_ticks: bool = True
