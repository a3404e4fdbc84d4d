"""The views of the decision log, as DuckDB is told them: Parquet and the live journal as one, corrections applied.

`_archived_<table>` and `_live_<table>` are there before; no record is in both.
"""

from tickgate_server.journal.entries import STATUSES
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import OrderState, Side

_STATUS_LIST = ", ".join(f"'{name}'" for name in STATUSES)


def _case(expression: str, names: dict[int, str]) -> str:
    """Names of numbers; the number as text where there is none."""
    branches = " ".join(f"WHEN {number} THEN '{name}'" for number, name in names.items())
    return f"CASE CAST({expression} AS INTEGER) {branches} ELSE {expression} END"


_RECORD = "worker, journal_ns, sequence, time"
_SIDE = _case("payload->>'side'", {int(side): side.name for side in Side})
_ORDER_STATE = _case("payload->>'state'", {int(state): state.name for state in OrderState})
_TRADING_STATE = _case("payload->>'state'", {int(state): state.name for state in TradingState})

VIEWS = {
    "events": "SELECT * FROM _archived_events UNION ALL BY NAME SELECT * FROM _live_events",
    "ticks": "SELECT * FROM _archived_ticks UNION ALL BY NAME SELECT * FROM _live_ticks",
    # Answers journaled as OK that left as an error, which the journal tells behind them.
    "unsent": f"""
        SELECT worker, journal_ns, CAST(unnest(CAST(payload->'sequences' AS BIGINT[])) AS BIGINT) AS sequence,
            [{_STATUS_LIST}][CAST(payload->>'status' AS INTEGER) + 1] AS status
        FROM events WHERE control = 'UNSENT'""",
    "decisions": """
        SELECT d.* REPLACE (coalesce(u.status, d.status) AS status), d.status AS journaled_status
        FROM (SELECT * FROM _archived_decisions UNION ALL BY NAME SELECT * FROM _live_decisions) d
        LEFT JOIN unsent u ON u.sequence = d.sequence AND u.journal_ns = d.journal_ns AND u.worker = d.worker""",
    "fills": f"""
        SELECT date, {_RECORD}, payload->>'fill_id' AS fill_id, payload->>'symbol' AS symbol, {_SIDE} AS side,
            CAST(payload->>'size' AS DOUBLE) AS size, CAST(payload->>'price' AS DOUBLE) AS price,
            CAST(payload->>'order_id' AS BIGINT) AS order_id, CAST(payload->>'fee' AS DOUBLE) AS fee,
            nullif(CAST(payload->>'exchange_ts_ns' AS BIGINT), 0) AS exchange_ts_ns
        FROM events WHERE control = 'FILL'""",
    "orders": f"""
        SELECT date, {_RECORD}, CASE CAST(payload->>'order_id' AS BIGINT) WHEN 0 THEN sequence
            ELSE CAST(payload->>'order_id' AS BIGINT) END AS order_id, payload->>'symbol' AS symbol,
            coalesce({_ORDER_STATE}, 'ACCEPTED') AS state, CAST(payload->>'signed_size' AS DOUBLE) AS signed_size
        FROM events WHERE control = 'ORDER'""",
    "trading_states": f"""
        SELECT date, {_RECORD}, {_TRADING_STATE} AS state, payload->>'reason' AS reason, payload->>'who' AS who
        FROM events WHERE control = 'TRADING_STATE'""",
}
"""By name, each after those that it is made of."""
