"""`python -m tickgate_server.archive`: what a server starts where `archive.folder` is set."""

import sys
from threading import current_thread

from tickgate_server.scheduling import give_way


def main() -> None:
    """Give way before anything is imported: threads that a library starts then do so too."""
    if "--give-way" in sys.argv:
        give_way(current_thread())
    from tickgate_server.archive.child import archive_journals  # noqa: PLC0415

    archive_journals(prog_name="python -m tickgate_server.archive")


if __name__ == "__main__":
    main()
