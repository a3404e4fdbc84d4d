"""A feed for people to read: one line while it runs, a table when it ended."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tickgate_client.feeds.feeding import Feed


def live_line(feed: Feed, per_second: float) -> str:
    """Where a feed stands, in a line."""
    counts, publisher = feed.counts, feed.publisher
    parts = [
        f"{counts.published:,} published",
        f"{per_second:,.0f}/s",
        f"{publisher.unacknowledged:,} unacknowledged",
        f"{counts.tally.accepted:,} accepted",
        f"{counts.tally.rejected.total():,} rejected",
    ]
    if publisher.reconnects:
        parts.append(f"{publisher.reconnects:,} reconnects")
    if dead := feed.source_counts.get("dead_lettered"):
        parts.append(f"{dead:,} dead-lettered")
    return ", ".join(parts)


def show_feed(console: Console, feed: Feed, elapsed_s: float) -> None:
    """What a feed did, by outcome."""
    counts = feed.counts
    per_second = counts.answered / elapsed_s if elapsed_s > 0 else 0.0
    answered = f"{counts.answered:,} of {counts.published:,} ticks answered"
    console.print(f"{answered} in {elapsed_s:.2f} s ({per_second:,.0f}/s)")
    table = Table(title="Ticks")
    for heading in ("", "name"):
        table.add_column(heading)
    table.add_column("count", justify="right")
    rows = [
        ("server", "accepted", counts.tally.accepted),
        ("server", "repeated latest", counts.tally.repeated_latest),
        ("server", "conflated", counts.tally.conflated),
        *(("rejected", reason, ticks) for reason, ticks in sorted(counts.tally.rejected.items())),
        ("refused", "not as the contract has it", counts.refused),
        ("publisher", "resent", counts.resent),
        ("publisher", "reconnects", feed.publisher.reconnects),
        *(("source", name.replace("_", " "), count) for name, count in feed.source_counts.items()),
    ]
    for kind, name, count in rows:
        table.add_row(kind, name, f"{count:,}")
    console.print(table)
