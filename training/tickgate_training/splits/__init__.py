"""Which rows are fitted, chosen on and scored: walk-forward windows of rows or sessions, combinatorial purged splits.

The combinatorial ones are in `splits.combinatorial`.
"""

from tickgate_training.splits.config import RowWindowsConfig, SessionWindowsConfig, WalkForwardConfig
from tickgate_training.splits.sessions import Embargo, latest_sessions, walk_forward_sessions
from tickgate_training.splits.windows import Block, Window, latest, walk_forward

__all__ = [
    "Block",
    "Embargo",
    "RowWindowsConfig",
    "SessionWindowsConfig",
    "WalkForwardConfig",
    "Window",
    "latest",
    "latest_sessions",
    "walk_forward",
    "walk_forward_sessions",
]
