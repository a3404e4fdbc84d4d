"""What a request can be refused for.

    RequestError                the caller's fault or the clock's; never changes state half-way
    ├── FieldInvalid            a field is not what the contract asks for
    └── BudgetSpent             the time was up before an answer could leave

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


class BudgetSpent(RequestError):
    """The request's budget was spent.

    Attributes:
        stage: The stage that it was spent before.
        budget_ns: What was allowed, from arrival.
        spent_ns: What had been spent by then.
    """

    def __init__(self, stage: str, budget_ns: int, spent_ns: int) -> None:
        super().__init__(
            f"budget of {budget_ns / 1e3:.0f} us spent before {stage}: {spent_ns / 1e3:.0f} us since arrival"
        )
        self.stage = stage
        self.budget_ns = budget_ns
        self.spent_ns = spent_ns
