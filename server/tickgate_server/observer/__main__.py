"""`python -m tickgate_server.observer`: what the server starts as its observer."""

from tickgate_server.observer.commands import observe

if __name__ == "__main__":
    observe(prog_name="tickgate observe")
