"""What a shadow has shown so far: `<journal folder>/shadow/record.json`, written by its scorer, read by a promotion.

One record a shadow version: how often it said what production said, and how far its values were off, since the pair of
the two began. Beside the server's journal, or beside each worker's: `read_shadow_record` puts those together.
"""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from tickgate_server.models.errors import ModelError

SHADOW_FOLDER = "shadow"
RECORD_FILE = "record.json"

Divergence = Annotated[FiniteFloat, Field(ge=0.0, le=2.0)]


class ShadowRecordInvalid(ModelError):
    """The file of a shadow's record cannot be read, or is not what it should be.

    Attributes:
        path: The file.
        why: What was found and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShadowRecord(_Strict):
    """One shadow version beside one production version.

    Attributes:
        name: Of the model.
        version: Of the shadow.
        against: Production version that it was compared with; another one begins the record anew.
        decisions: Predictions of production that the shadow scored too.
        agreement: Share of them whose direction was the same, in [0, 1].
        mean_abs_divergence: Mean of abs(value of the shadow - value of production), values in [-1, 1].
        max_abs_divergence: The largest.
        since_ns: Clock of the first decision, nanoseconds since the Unix epoch.
        until_ns: Of the last one.
    """

    name: str
    version: int = Field(ge=1)
    against: int = Field(ge=1)
    decisions: int = Field(ge=1)
    agreement: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
    mean_abs_divergence: Divergence
    max_abs_divergence: Divergence
    since_ns: int = Field(ge=0)
    until_ns: int = Field(ge=0)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "ShadowRecord":
        if self.until_ns < self.since_ns:
            raise ValueError(f"until_ns {self.until_ns} is before since_ns {self.since_ns}")
        return self


class ShadowRecords(_Strict):
    """The file: a record for each shadow version."""

    format_version: Literal[1] = 1
    records: tuple[ShadowRecord, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> "ShadowRecords":
        keys = [(record.name, record.version) for record in self.records]
        if len(set(keys)) < len(keys):
            raise ValueError("records has a version twice")
        return self


def write_shadow_records(folder: Path, records: Iterable[ShadowRecord]) -> None:
    """Write the file of one journal anew, beside its place and renamed into it.

    Args:
        folder: Of the journal.
        records: All there are.

    Raises:
        OSError: It cannot be written; the file before stays.
    """
    place = folder / SHADOW_FOLDER
    place.mkdir(exist_ok=True)
    beside = place / f".{RECORD_FILE}-{uuid.uuid4().hex}"
    try:
        beside.write_text(ShadowRecords(records=tuple(records)).model_dump_json(indent=1) + "\n")
        beside.replace(place / RECORD_FILE)
    finally:
        beside.unlink(missing_ok=True)


def read_shadow_records(folder: Path) -> tuple[ShadowRecord, ...]:
    """The records beside one journal; none where there is no file.

    Args:
        folder: Of the journal.

    Raises:
        ShadowRecordInvalid: The file cannot be read, or is not what `ShadowRecords` describes.
    """
    path = folder / SHADOW_FOLDER / RECORD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ShadowRecordInvalid(path, f"cannot be read ({error})") from error
    try:
        return ShadowRecords.model_validate_json(text).records
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise ShadowRecordInvalid(path, found) from error


def read_shadow_record(journal: Path | None, name: str, version: int, against: int | None) -> ShadowRecord | None:
    """What a version has shown as the shadow of what is production now, over all workers' journals; None: nothing.

    Args:
        journal: Folder of the server's journal, which its workers' are in; None: it keeps none.
        name: Of the model.
        version: Of the shadow.
        against: Production's version; None: there is none, and so no record.

    Raises:
        ShadowRecordInvalid: As `read_shadow_records`.
    """
    if journal is None:
        return None
    found = [
        record
        for folder in (journal, *sorted(journal.glob("worker-*")))
        for record in read_shadow_records(folder)
        if (record.name, record.version, record.against) == (name, version, against)
    ]
    if not found:
        return None
    decisions = sum(record.decisions for record in found)
    return ShadowRecord(
        name=name,
        version=version,
        against=found[0].against,
        decisions=decisions,
        agreement=min(1.0, sum(record.agreement * record.decisions for record in found) / decisions),
        mean_abs_divergence=sum(record.mean_abs_divergence * record.decisions for record in found) / decisions,
        max_abs_divergence=max(record.max_abs_divergence for record in found),
        since_ns=min(record.since_ns for record in found),
        until_ns=max(record.until_ns for record in found),
    )
