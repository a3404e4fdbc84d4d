"""The `journal` verb of the `tickgate` command: read a journal, and verify one."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tickgate_server.journal.entries import DecisionEntry, Entry, TicksEntry
from tickgate_server.journal.errors import JournalError, RecordDamaged, RecordsRemoved
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.verify import verify as verify_folder

# How long `cat --follow` waits where nothing is new.
_IDLE_S = 0.05

_FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.group()
def journal() -> None:
    """Read and verify a server's journal: every input that changed state, and every decision."""


@journal.command()
@_FOLDER
@click.option("--from", "start", type=click.IntRange(min=1), help="First sequence; the oldest record if not given.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many entries.")
@click.option("--follow", is_flag=True, help="Wait for more, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def cat(folder: Path, start: int | None, limit: int | None, follow: bool, as_json: bool) -> None:  # noqa: FBT001 - flags
    """Print what is in a journal, one line an entry.

    What is lost, to retention or damage, is said on standard error, and the exit status is 1 then.
    """
    shown = 0
    lost = False
    try:
        with JournalReader(folder, start) as reader:
            while True:
                try:
                    for entry in reader:
                        click.echo(json.dumps(entry.as_dict(), allow_nan=False) if as_json else line(entry))
                        shown += 1
                        if shown == limit:
                            sys.exit(lost)
                except (RecordsRemoved, RecordDamaged) as error:
                    click.echo(f"lost: {error}", err=True)
                    lost = True
                    continue
                if not follow:
                    sys.exit(lost)
                time.sleep(_IDLE_S)
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(lost)


@journal.command()
@_FOLDER
def verify(folder: Path) -> None:
    """Check every header, sequence and checksum of a journal.

    Exits with 1 if anything is wrong but a torn tail at the very end, which the next start cuts off.
    """
    try:
        found = verify_folder(folder)
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    table = Table("segment", "first record", "records", "created", "tickgate", "kernels")
    for segment in found.segments:
        header = segment.header
        written_with = header.environment
        table.add_row(
            str(header.number),
            str(header.first_sequence),
            str(segment.records),
            _time(header.created_ns),
            str(written_with.get("versions", {}).get("tickgate", "")),
            str(written_with.get("kernels", "")),
        )
    Console().print(table)
    click.echo(f"{len(found.segments)} segments, {found.records} records, {found.prepared} prepared")
    if found.torn is not None:
        click.echo(f"torn tail: segment {found.torn.segment}, record {found.torn.record}: {found.torn.why}")
    for fault in found.faults:
        click.echo(f"fault: {fault}", err=True)
    sys.exit(not found.whole)


def line(entry: Entry) -> str:
    """One entry for people."""
    said = entry.as_dict()
    begin = f"{entry.sequence:>10} {_time(said['clock_ns']):<27}"
    if isinstance(entry, TicksEntry):
        return f"{begin} TICKS {json.dumps(said['ticks'], allow_nan=False)}"
    if not isinstance(entry, DecisionEntry):
        again = " (restated)" if entry.restated else ""
        return f"{begin} {said['control']}{again} {json.dumps(said['payload'], allow_nan=False)}"
    model = said["model"]
    who = f"{model['name']}:{model['version']}" if model and "name" in model else said["model_asked"] or "-"
    parts = [begin, said["symbol"] or "-", said["input"], who, said["status"], said["stage"]]
    if "action" in said:
        parts += [said["action"], said["reason"] or "-", f"confidence {said['confidence']}", f"size {said['size']}"]
        parts.append(f"{said['timing_ns']['total'] / 1e3:.1f} us")
    return " ".join(parts + said["flags"])


def _time(clock_ns: int) -> str:
    if not clock_ns:
        return "-"
    seconds, rest = divmod(clock_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"
