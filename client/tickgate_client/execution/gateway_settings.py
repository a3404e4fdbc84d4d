"""How a gateway works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How a gateway works.

    Attributes:
        prefix: Begins every order id at the venue; gateways that share an engine need different ones, as those of
            several workers do.
        step_every_s: How often children that are due are looked for by a thread; 0: only when `step` is called.
        reconcile_every_s: How often positions are compared by it; 0: at the start, and when `reconcile` is called.
        report_timeout_s: How long a comparison waits for the server to take reports in.
        settle_s: How long positions at the venue may run ahead of its events.
        flatten_collar: How far beyond the last price positions are closed, a fraction.
        flatten_valid_s: How long an order that closes a position is valid.
        symbols: Whose positions are compared; None: all that anybody has. Others are somebody else's.
    """

    prefix: str = ""
    step_every_s: float = 0.05
    reconcile_every_s: float = 60.0
    report_timeout_s: float = 5.0
    settle_s: float = 0.5
    flatten_collar: float = 0.05
    flatten_valid_s: float = 60.0
    symbols: frozenset[str] | None = None
