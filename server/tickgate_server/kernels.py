"""How every numba kernel of tickgate is compiled, and where its machine code is kept.

numba's own cache is keyed by the file of the function alone: a cached caller keeps the old result when a callee in
another file changed. So the cache folder is named by a hash of all modules with a kernel in them, of all that these
import (whose constants are compiled in), and of numba's version, which also serves read-only installs. It is
`$TICKGATE_KERNEL_CACHE/<hash>`, by default `$XDG_CACHE_HOME/tickgate/kernels/<hash>`; the newest `KEPT_CACHES` folders
are kept, older ones removed.

Kernels are compiled when their module is imported, for explicit signatures, never with fastmath: batch and stream are
the same machine code, and equal bit for bit.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

KEPT_CACHES = 8
_PACKAGE = Path(__file__).resolve().parent
_IMPORTED = re.compile(r"^from (tickgate_server[\w.]*) import", re.MULTILINE)


def _kernel_sources() -> list[Path]:
    """Every module that could hold a kernel or a constant compiled into one."""
    texts = {path: path.read_text() for path in _PACKAGE.rglob("*.py")}
    found = {path for path, text in texts.items() if "tickgate_server.kernels import" in text}
    reached = set(found)
    while reached:  # what they import, and what that imports
        names = {name for path in reached for name in _IMPORTED.findall(texts[path])}
        places = [_PACKAGE.joinpath(*name.split(".")[1:]) for name in names]
        modules = {path for place in places for path in (place.with_suffix(".py"), *place.glob("*.py"))}
        reached = {path for path in modules if path in texts} - found
        found |= reached
    return sorted(found)


def _source_hash() -> str:
    digest = hashlib.sha256(version("numba").encode())
    for path in [Path(__file__), *_kernel_sources()]:
        digest.update(str(path.relative_to(_PACKAGE)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    if configured := os.environ.get("TICKGATE_KERNEL_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tickgate" / "kernels"


def _cache_folder() -> Path:
    """The folder for these sources, made if need be; a temporary one where the cache's place cannot be written."""
    folder = _cache_root() / _source_hash()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()  # the newest are kept
    except OSError:
        # Compiling at each start is slow, not wrong; a user's id in the name keeps others' files out.
        folder = Path(tempfile.gettempdir()) / f"tickgate-kernels-{os.getuid()}" / _source_hash()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder
    caches = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in caches[KEPT_CACHES:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


CACHE_FOLDER = _cache_folder()
# Read by numba when it is first imported; a program that imported numba before us is told below.
os.environ["NUMBA_CACHE_DIR"] = str(CACHE_FOLDER)

import numba  # noqa: E402 - only after the cache's place is set

setattr(numba.config, "CACHE_DIR", str(CACHE_FOLDER))  # noqa: B010 - made by numba at run time


F = TypeVar("F", bound=Callable[..., Any])


def kernel(signature: Any) -> Callable[[F], F]:
    """Decorator that compiles a function with numba for one or several signatures, at import.

    A signature is numba's own: text, a list of texts, or made of `numba.types`. Division follows IEEE 754 (x / 0 is an
    infinity or NaN) instead of raising: the callers check for finite results.
    """
    return cast("Callable[[F], F]", numba.njit(signature, cache=True, fastmath=False, error_model="numpy"))
