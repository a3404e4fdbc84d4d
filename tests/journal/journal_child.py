"""Writers and readers in processes of their own. Usage: -m tests.journal.journal_child ROLE FOLDER NUMBER."""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.journal.journal_samples import append, approved, tick

from tickgate_server.journal.errors import JournalFull
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter

PAYLOAD = {"text": "x" * 1500}


def say(value: object) -> None:
    os.write(1, f"{json.dumps(value)}\n".encode())


def write(folder: Path, dies_at: int) -> None:
    """Append for ever, acknowledge each; where `dies_at` > 0, be killed before so many lines of the writer's code."""
    with JournalWriter(folder, segment_records=64, retained_segments=1000) as writer:
        if dies_at:
            left = dies_at

            def line(_frame: FrameType, event: str, _: Any) -> Any:
                nonlocal left
                if event == "line":
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                return line

            def call(frame: FrameType, _event: str, _: Any) -> Any:
                return line if "/journal/" in frame.f_code.co_filename else None

            sys.settrace(call)
        while True:
            sequence = writer.append_decision(tick(writer.next_sequence), approved(), applied=True)
            say(sequence)
            if sequence % 5 == 0:
                writer.append_control(ControlKind.FILL, PAYLOAD)
                say(writer.next_sequence - 1)


def read(folder: Path, last: int) -> None:
    """Follow up to a sequence, and print every sequence."""
    with JournalReader(folder) as reader:
        say("ready")
        while reader.next_sequence <= last:
            rows = reader.poll(50)
            if rows.size:
                say(rows["sequence"].tolist())


def fill(folder: Path, _: int) -> None:
    """Run into a limit of the file size, then on once it is lifted."""
    with JournalWriter(folder, segment_records=64) as writer:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            append(writer, 1000)
        except JournalFull as error:
            say([writer.next_sequence, error.needed_bytes])
        for _ in range(3):
            try:
                append(writer)
            except JournalFull:
                say("full")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        append(writer, 10)
        say(writer.next_sequence)


if __name__ == "__main__":
    {"write": write, "read": read, "fill": fill}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
