"""`python -m tickgate_server.shadow`: what a server starts while a model has a shadow."""

import sys
from threading import current_thread

from tickgate_server.scheduling import give_way


def main() -> None:
    """Give way before anything is imported: threads that a library starts then do so too."""
    if "--give-way" in sys.argv:
        give_way(current_thread())
    from tickgate_server.shadow.commands import score  # noqa: PLC0415

    score(prog_name="python -m tickgate_server.shadow")


if __name__ == "__main__":
    main()
