"""Everything that this package raises on purpose.

    TickgateError
    ├── CallError(status_code, message, request_id)      an answer that is not OK, by its gRPC status
    │   ├── InvalidRequest(field)                        INVALID_ARGUMENT, OUT_OF_RANGE
    │   ├── ModelNotFound(model)                         NOT_FOUND
    │   ├── ModelNotLoaded(model)                        FAILED_PRECONDITION
    │   ├── WrongWorker(worker, workers)                 FAILED_PRECONDITION that names a worker
    │   ├── DeadlineExceeded                             DEADLINE_EXCEEDED
    │   ├── Overloaded                                   RESOURCE_EXHAUSTED
    │   ├── ServerUnavailable                            UNAVAILABLE: draining, or no connection
    │   ├── UpdateConflict                               ABORTED, ALREADY_EXISTS
    │   ├── PermissionDenied                             PERMISSION_DENIED
    │   ├── Unauthenticated                              UNAUTHENTICATED
    │   ├── CallCancelled                                CANCELLED
    │   ├── NotSupported                                 UNIMPLEMENTED: the server is older than the client
    │   └── ServerFault                                  INTERNAL, UNKNOWN, DATA_LOSS
    ├── ContractBroken(expected, found)                  the server answered what the contract rules out
    ├── BadTickFile(path, line, column, found, expected)
    ├── UnknownTickReader(name, known)
    ├── BadColumns(column, found, expected)              ticks to publish that are not of one length, or the like
    ├── BadTickEntry(field, found, expected)             a message of a source that holds no tick
    ├── UnknownTickSource(name, known)
    ├── BadSourceOption(source, option, found, expected)
    ├── SourceFailed(source, cause)                      trying again would not help
    ├── PublisherClosed                                  nothing is published any more
    ├── TradingHeld(objective, policy, causes)           the SLA is in breach: no new risk
    ├── BadSlaFile(path, where, found, expected)
    ├── BadPaperConfig(path, where, found, expected)      in `paper.config`
    ├── ServerNotStarted(log, said)                      in `paper.server`
    ├── those of orders and their outbox                 drawn in `execution.errors`
    └── ExtraMissing(feature, extra, cause)

Those with a gRPC status live in `call_errors`: the command line must not import gRPC before a verb has set it up.

A signal to HOLD is an answer, not an error. No error is retried here: on the trading path the caller decides
what a late order is worth. The one exception is a routed client's WrongWorker, where nothing was applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class TickgateError(Exception):
    """Root of the tree."""


class ContractBroken(TickgateError):
    """The server's answer does not fit what was asked: nothing of it is handed on."""

    def __init__(self, *, expected: str, found: str) -> None:
        super().__init__(f"the server broke the contract: expected {expected}, found {found}")
        self.expected = expected
        self.found = found


class BadTickFile(TickgateError, ValueError):
    """A file of ticks that cannot be taken as it is.

    Attributes:
        path: The file.
        line: Line at which the row starts, from 1.
        column: Name of the column, or empty if the row as a whole is at fault.
        found: What stands there.
        expected: What should.
    """

    def __init__(self, path: Path, line: int, column: str, *, found: str, expected: str) -> None:
        where = f"{path}, line {line}" + (f", column {column}" if column else "")
        super().__init__(f"{where}: found {found}, expected {expected}")
        self.path = path
        self.line = line
        self.column = column
        self.found = found
        self.expected = expected


class UnknownTickReader(TickgateError, LookupError):
    """No reader of that name is registered in the entry-point group `tickgate.tick_readers`."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no tick reader {name!r}; there are: {', '.join(known) or 'none'}")
        self.name = name
        self.known = tuple(known)


class BadColumns(TickgateError, ValueError):
    """Columns of ticks that the contract rules out.

    Attributes:
        column: Its name; of an entry, with the index: `symbols[3]`.
        found: What stands there.
        expected: What should.
    """

    def __init__(self, column: str, *, found: str, expected: str) -> None:
        super().__init__(f"column {column}: found {found}, expected {expected}")
        self.column = column
        self.found = found
        self.expected = expected


class BadTickEntry(TickgateError, ValueError):
    """A message of a tick source that holds no tick, or none that can be read.

    Attributes:
        field: Name of the field at fault, or empty if the message as a whole is.
        found: What stands there.
        expected: What should.
    """

    def __init__(self, field: str, *, found: str, expected: str) -> None:
        super().__init__(f"{field or 'entry'}: found {found}, expected {expected}")
        self.field = field
        self.found = found
        self.expected = expected


class UnknownTickSource(TickgateError, LookupError):
    """No source of that name is registered in the entry-point group `tickgate.tick_sources`."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no tick source {name!r}; there are: {', '.join(known) or 'none'}")
        self.name = name
        self.known = tuple(known)


class BadSourceOption(TickgateError, ValueError):
    """An option of a tick source that is missing, unknown or not of its type.

    Attributes:
        source: Name of the source.
        option: Name of the option.
        found: What was given.
        expected: What should be.
    """

    def __init__(self, source: str, option: str, *, found: str, expected: str) -> None:
        super().__init__(f"source {source}, option {option}: found {found}, expected {expected}")
        self.source = source
        self.option = option
        self.found = found
        self.expected = expected


class SourceFailed(TickgateError):
    """A tick source that cannot go on, and would not if it tried again.

    Attributes:
        source: What it reads from.
        cause: What went wrong.
    """

    def __init__(self, source: str, cause: str) -> None:
        super().__init__(f"{source}: {cause}")
        self.source = source
        self.cause = cause


class PublisherClosed(TickgateError):
    """The publisher was closed before these ticks were acknowledged."""

    def __init__(self) -> None:
        super().__init__("the publisher is closed: what was not acknowledged may not have been applied")


class TradingHeld(TickgateError):
    """The SLA monitor lets no order pass that adds risk.

    Attributes:
        objective: Name of the objective in breach; of several, one with the strictest policy.
        policy: `HOLD` or `FLATTEN`.
        causes: What is wrong now, as names of `sla.BreachCause`; empty while it only was not clean for long enough.
    """

    def __init__(self, objective: str, policy: str, causes: Sequence[str]) -> None:
        why = ", ".join(causes) or "not clean for long enough yet"
        super().__init__(f"{policy}: objective {objective!r} is in breach ({why}); no order that adds risk")
        self.objective = objective
        self.policy = policy
        self.causes = tuple(causes)


class BadSlaFile(TickgateError, ValueError):
    """A file that is not what the SLA monitor exports.

    Attributes:
        path: The file.
        where: The field at fault, or empty if the file as a whole is.
        found: What stands there.
        expected: What should.
    """

    def __init__(self, path: Path, where: str, *, found: str, expected: str) -> None:
        super().__init__(f"{path}{f', {where}' if where else ''}: found {found}, expected {expected}")
        self.path = path
        self.where = where
        self.found = found
        self.expected = expected


class ExtraMissing(TickgateError, ImportError):
    """Part of tickgate was asked for whose packages are not installed.

    Attributes:
        feature: What was asked for.
        extra: The extra of the distribution `tickgate` that has it.
        cause: What the import said.
    """

    def __init__(self, feature: str, extra: str, cause: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed ({cause}): pip install 'tickgate[{extra}]'")
        self.feature = feature
        self.extra = extra
        self.cause = cause
