"""What the parts of the fast lane's kernel hand each other, and the enums' numbers that they write."""

from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.reasons import Action, Reason

# Columns of a lane's `settings`, int64.
(
    FUTURE_LIMIT_NS,
    STALE_LIMIT_NS,
    REPLAY,
    HORIZON,
    LATENCY_BUDGET_NS,
    MODEL_INDEX,
    MODEL_NUMBER,
    GAP_NS,
    WITH_QUOTES,  # not 0: the feature set is micro32
) = range(9)
SETTINGS = 9

# The lane's arrays by number, int64 [LANE_ARRAYS, 3]: those of the engine, of the references, of the feature set.
REFERENCES = 15
STORE = 20
LANE_ARRAYS = 29
# The arrays of one of its models.
MODEL_ARRAYS = 8

# What `answer` and its parts hand each other, int64 [FACTS]; the five times in the order of the record's.
(
    WAITING_NS,
    FEATURES_NS,
    INFERENCE_NS,
    RISK_NS,
    TOTAL_NS,
    SCORED,
    READY,
    TRADES,
    FEATURES_TS_NS,
    BUDGET_NS,
    ASKED_BUDGET_NS,
    SEND_TS_NS,
    REASON,
    ACTION,
    VALID_FOR,
    APPLIED,
    CLOCK,
    STATUS,
    ORDER_ID,
    SLOT,  # of a reservation that was made; -1: none was
    TRADING_STATE,
    AGE_US,
) = range(22)
FACTS = 22

CHECK_COUNT = len(CHECKS)
HOLD, BUY, SELL = int(Action.HOLD), int(Action.BUY), int(Action.SELL)
APPROVED, INVALID_OUTPUT = int(Reason.APPROVED), int(Reason.MODEL_INVALID_OUTPUT)
NOT_READY = int(Reason.FEATURES_NOT_READY)
