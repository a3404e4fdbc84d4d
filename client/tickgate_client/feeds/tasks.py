"""How background tasks are ended."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_S = 0.1


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they are over; what they ended with stays with them.

    Once is not enough: where an answer comes at the same moment, `asyncio.wait_for` of Python 3.11 gives the answer and
    drops the cancellation, and libraries use it.
    """
    under_way = {task for task in tasks if not task.done()}
    while under_way:
        for task in under_way:
            task.cancel()
        _, under_way = await asyncio.wait(under_way, timeout=_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: whoever wants it asks the task
