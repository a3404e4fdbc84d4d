"""The system's Chromium, headless, with a profile of its own."""

import subprocess
from pathlib import Path

from tests.support.programs import program

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def chromium(url: str, folder: Path, *flags: str, virtual_ms: int = 6_000) -> str:
    """What a run with these flags prints once the page had so long, by its own clock.

    Args:
        url: The page.
        folder: For the profile.
        flags: `--dump-dom`, or `--screenshot=FILE`.
        virtual_ms: Of the page's clock, which stands while it waits for an answer.
    """
    command = [
        program("chromium", "shows the page"),
        *_FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--virtual-time-budget={virtual_ms}",
        *flags,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
