"""Whether a challenger takes over: by rule, and by nothing else.

It does where both hold: the rules that every promotion is held to let it pass (`models.promotion`: its verdict, with
the deflated Sharpe ratio over all tries against this champion, overfitting, parity and sample size), and the paired
test's p-value is at most the rule's. What is missing or undefined denies. No override is given here: that is a
person's.
"""

from dataclasses import dataclass

from tickgate_server.models.package import Manifest
from tickgate_server.models.promotion import PromotionLimits, failures, judge
from tickgate_training.retraining.config import RuleConfig
from tickgate_training.retraining.paired import PairedTest

# A challenger was no shadow yet: what it would have said on the newest rows is what the paired test is about.
_NO_SHADOW_NEEDED = PromotionLimits(shadow_decisions=0)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the challenger passes, and why or why not."""

    passes: bool
    reason: str


def decide(manifest: Manifest, test: PairedTest, rule: RuleConfig) -> Decision:
    """Hold a challenger, by the manifest that it was published with, against the rule."""
    against = []
    failed = failures(judge(manifest, None, _NO_SHADOW_NEEDED))
    if failed:
        against.append(f"checks that it did not pass: {', '.join(one.name for one in failed)}")
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
