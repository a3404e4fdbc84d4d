"""Labels: what a model is asked to foresee, and the rows that each label looks at.

A decision that reads trade i can be executed at trade i + lag at the earliest, lag >= 1. Whatever the kind, the label
of row i speaks of the return from row i + lag on, and its label interval [i, interval_end], both ends included, is what
purging and weights look at. Kinds: `fixed_horizon`, `fixed_time`, `triple_barrier`; `meta_labels` on top of any.
"""

from tickgate_training.labels.barriers import triple_barrier
from tickgate_training.labels.config import FixedHorizonConfig, LabelConfig, TripleBarrierConfig
from tickgate_training.labels.fixed import fixed_horizon, fixed_time
from tickgate_training.labels.labels import DOWN, UNLABELLED, UP, Labels
from tickgate_training.labels.meta import meta_labels
from tickgate_training.labels.panel import panel_ends, panel_labels

__all__ = [
    "DOWN",
    "UNLABELLED",
    "UP",
    "FixedHorizonConfig",
    "LabelConfig",
    "Labels",
    "TripleBarrierConfig",
    "fixed_horizon",
    "fixed_time",
    "meta_labels",
    "panel_ends",
    "panel_labels",
    "triple_barrier",
]
