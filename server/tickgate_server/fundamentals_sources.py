"""The source of fundamentals that the settings name."""

from pathlib import Path

from tickgate_server.config import FundamentalsSection, Settings
from tickgate_server.features.fundamentals_feed import FileSource, FundamentalsSource
from tickgate_server.features.fundamentals_file import Columns
from tickgate_server.features.fundamentals_table import FundamentalsInvalid

_MB = 1024 * 1024


def fundamentals_source(settings: Settings) -> FundamentalsSource:
    """Where fundamentals come from: a file, an address, or Redis. What the other two are read with is imported here.

    Raises:
        FundamentalsInvalid: The file of the token cannot be read; or none of the three is named.
    """
    section = settings.fundamentals
    if section.store:
        from tickgate_server.store.fundamentals import RedisSource  # noqa: PLC0415 - a server without has no use for it

        return RedisSource(settings.store)
    return source_at(section.url or section.file or "", section)


def source_at(place: str | Path, section: FundamentalsSection) -> FundamentalsSource:
    """A file, or an address where `place` begins with `http://` or `https://`; read as the section says.

    Raises:
        FundamentalsInvalid: The file of the token cannot be read; or there is no place.
    """
    columns = Columns(section.symbol, section.name, section.value, section.as_of, section.as_of_unit, section.time_zone)
    if not place:
        raise FundamentalsInvalid("settings", "expected fundamentals.file, .url or .store, found none of them")
    if not str(place).startswith(("http://", "https://")):
        return FileSource(Path(place), columns)
    from tickgate_server.features.fundamentals_http import HttpSource, HttpTerms  # noqa: PLC0415 - as above

    terms = HttpTerms(
        timeout_s=section.timeout_s, body_limit_bytes=section.body_limit_mb * _MB, token=_token(section.token_file)
    )
    return HttpSource(str(place), columns, terms)


def _token(path: Path | None) -> str:
    try:
        return "" if path is None else path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FundamentalsInvalid(str(path), f"the token cannot be read ({error})") from error
