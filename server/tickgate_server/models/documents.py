"""Small JSON documents beside the packages: read whole, within a bound, and held to their form."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

_Document = TypeVar("_Document", bound=BaseModel)


def read_document(
    path: Path, form: type[_Document], limit_bytes: int, invalid: Callable[[Path, str], Exception]
) -> _Document | None:
    """The document in a file; None: there is none.

    Args:
        path: Of the file.
        form: What it must be.
        limit_bytes: A longer one is refused.
        invalid: Makes the error to raise, of the file and why.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise invalid(path, f"cannot be read ({error})") from error
    if len(data) > limit_bytes:
        raise invalid(path, f"expected at most {limit_bytes} bytes")
    try:
        return form.model_validate_json(data)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise invalid(path, found) from error
