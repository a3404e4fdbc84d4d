"""The metrics of a server, read over HTTP."""

import http.client
import time

from prometheus_client.parser import text_string_to_metric_families

from tickgate_server.observer.live.reading import Reading

TIMEOUT_S = 5.0
# 256 model versions are 6 MB; more is no observer's.
MOST_BYTES = 64 * 2**20


class MetricsUnread(Exception):
    """An endpoint gave no metrics.

    Attributes:
        address: That was asked.
        why: What was wrong.
    """

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"no metrics from http://{address}/metrics: {why}")
        self.address = address
        self.why = why


def read(address: str) -> Reading:
    """The metrics as they are now.

    Args:
        address: `host:port`.

    Raises:
        MetricsUnread: It does not answer within five seconds, or not with metrics.
    """
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise MetricsUnread(address, str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise MetricsUnread(address, f"expected status 200, got {answer.status}")
    if len(body) > MOST_BYTES:
        raise MetricsUnread(address, f"expected at most {MOST_BYTES:,} bytes")
    try:
        reading = Reading(text_string_to_metric_families(body.decode()), time.monotonic())
    except ValueError as error:
        raise MetricsUnread(address, f"expected the text format, got {str(error)[:80]!r}") from error
    if not reading.series("tickgate_build_info"):
        raise MetricsUnread(address, "expected a tickgate server's, got others")
    return reading
