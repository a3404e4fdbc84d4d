"""Whether a challenger takes over: by rule, and by nothing else.

It does where all of this holds: its verdict may be promoted (`models.verdict`: deflated Sharpe ratio over all tries
against this champion, overfitting, parity, sample size), and the paired test's p-value is at most the rule's. What is
missing or undefined denies.
"""

from dataclasses import dataclass

from tickgate_server.models.verdict import PromotionVerdict, failures
from tickgate_training.retraining.config import RuleConfig
from tickgate_training.retraining.paired import PairedTest


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the challenger passes, and why or why not."""

    passes: bool
    reason: str


def decide(verdict: PromotionVerdict, test: PairedTest, rule: RuleConfig) -> Decision:
    """Hold a challenger against the rule."""
    against = []
    if not verdict.promotable:
        against.append(f"checks that it did not pass: {', '.join(failures(verdict.checks))}")
    if test.why:
        against.append(f"the paired test is undefined: {test.why}")
    elif not test.p_value <= rule.p_value:
        against.append(f"the paired test gives p = {test.p_value:.3g}, at most {rule.p_value:g} is needed")
    if against:
        return Decision(passes=False, reason="; ".join(against))
    return Decision(
        passes=True,
        reason=(
            f"Sharpe ratio {test.sharpe_challenger:.3g} a block against {test.sharpe_champion:.3g},"
            f" p = {test.p_value:.3g} over {test.blocks} blocks"
        ),
    )
