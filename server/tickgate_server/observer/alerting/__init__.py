"""Alerts: what is wrong now, who is told, and what became of telling them.

`conditions` says what is wrong, out of what tails know; the `board` since when, and until when; `receivers` tell
Alertmanagers and a webhook, each in a thread of its own, so that one that is gone delays nobody; `alerts` ties them
together.
"""
