"""Where metrics are served: what the setting must be, and what is said where it cannot be had."""


class MetricsAddressTaken(Exception):
    """The metrics endpoint cannot listen.

    Attributes:
        address: As it was set.
    """

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"server.metrics_listen: cannot listen on {address}: {why}")
        self.address = address


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`.

    Raises:
        ValueError: It is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ValueError(f"server.metrics_listen: expected host:port, got {address!r}")
    return host, int(port)
