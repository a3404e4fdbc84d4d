"""What can keep a decision from being explained.

ExplainError
├── RequestUnknown        no decision has that request id
└── RequestAmbiguous      several decisions have it, and none is asked for
"""

from collections.abc import Sequence


class ExplainError(Exception):
    """Root of this tree."""


class RequestUnknown(ExplainError):
    """No decision has that request id.

    Attributes:
        request_id: As asked for.
    """

    def __init__(self, request_id: str, sequence: int | None = None) -> None:
        which = "" if sequence is None else f" in record {sequence}"
        super().__init__(f"no decision has request id {request_id!r}{which}, in the archive or in the journal")
        self.request_id = request_id


class RequestAmbiguous(ExplainError):
    """Several requests had that id, each decided on its own.

    Attributes:
        request_id: As asked for.
        sequences: Of their records, oldest first.
    """

    def __init__(self, request_id: str, sequences: Sequence[int]) -> None:
        super().__init__(
            f"request id {request_id!r} was decided {len(sequences)} times: expected --sequence, one of"
            f" {', '.join(map(str, sequences[-10:]))}"
        )
        self.request_id = request_id
        self.sequences = sequences
