"""`python -m tickgate_server.store`: what a server with a store starts."""

import sys
from threading import current_thread

from tickgate_server.scheduling import give_way


def main() -> None:
    """Give way before anything is imported: threads that a library starts then do so too."""
    if "--give-way" in sys.argv:
        give_way(current_thread())
    from tickgate_server.store.children import child  # noqa: PLC0415

    child(prog_name="python -m tickgate_server.store")


if __name__ == "__main__":
    main()
