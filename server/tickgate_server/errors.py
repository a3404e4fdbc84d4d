"""What a request can be refused for.

    RequestError                the caller's fault or the clock's; never changes state half-way
    ├── FieldInvalid            a field is not what the contract asks for
    ├── SymbolElsewhere         another worker of this server has the symbol
    ├── BudgetSpent             the time was up before an answer could leave, or would have been
    └── IngestFull              too many published ticks wait, and nothing was taken in

Models have a tree of their own: `tickgate_server.models.errors`.
"""


class RequestError(Exception):
    """Root of this tree."""


class FieldInvalid(RequestError):
    """A field of the request is not what the contract asks for.

    Attributes:
        field: Its path in the request, `tick.trade.price` for example.
        expected: What would do.
        found: What was there.
    """

    def __init__(self, field: str, expected: str, found: object) -> None:
        super().__init__(f"{field}: expected {expected}, got {found!r}")
        self.field = field
        self.expected = expected
        self.found = found


class SymbolElsewhere(RequestError):
    """Another worker of this server has the symbol; nothing changed, and here nothing ever will.

    Attributes:
        worker: Index of the worker that has it.
        workers: How many there are.
        reached: Index of this one.
    """

    def __init__(self, worker: int, workers: int, reached: int) -> None:
        super().__init__(f"symbol: expected worker {worker} of {workers}, reached worker {reached}")
        self.worker = worker
        self.workers = workers
        self.reached = reached


class BudgetSpent(RequestError):
    """The request's budget was spent, or what was left of it less than what the rest usually takes.

    Attributes:
        stage: The stage that it was spent before.
        budget_ns: What was allowed, from arrival.
        spent_ns: What had been spent by then.
        expected_ns: What that stage and those after it usually take, where that was too much; 0: the budget was spent.
    """

    def __init__(self, stage: str, budget_ns: int, spent_ns: int, expected_ns: int = 0) -> None:
        since = f"{spent_ns / 1e3:.0f} us since arrival"
        super().__init__(
            f"budget of {budget_ns / 1e3:.0f} us too short before {stage}: {since}, and from there on it usually takes"
            f" {expected_ns / 1e3:.0f} us"
            if expected_ns
            else f"budget of {budget_ns / 1e3:.0f} us spent before {stage}: {since}"
        )
        self.stage = stage
        self.budget_ns = budget_ns
        self.spent_ns = spent_ns
        self.expected_ns = expected_ns


class IngestFull(RequestError):
    """Too much of something waits to be applied; nothing was taken in, and it may be sent again.

    Attributes:
        what: Of which there are too many.
        limit: The most there may be.
    """

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what}: {limit:,} wait to be applied, the most there may be")
        self.what = what
        self.limit = limit
