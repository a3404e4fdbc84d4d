"""Settings: one TOML file and `TICKGATE_*`, validated, frozen, built once; never read on the hot path.

A value comes from the first of: the command line, the environment (`TICKGATE_RISK__MAX_ORDER_NOTIONAL=5e4`), the file,
the default. An unknown key is an error, in the environment too.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.models.promotion import PromotionLimits
from tickgate_server.risk.estimates import RiskValueSettings
from tickgate_server.risk.limits import Limits
from tickgate_server.store_settings import StoreSettings

PREFIX = "TICKGATE_"
NESTED = "__"
# In the journal's folder: the admin listener, where no other address is set.
ADMIN_SOCKET = "admin.sock"
# Read before any settings are: where compiled kernels are kept.
_NOT_SETTINGS = {"TICKGATE_KERNEL_CACHE"}

# Of a feed's name.
FEED_BYTES = 32
# Up to 31 years: as nanoseconds it fits an int64.
Seconds = Annotated[float, Field(ge=0.0, le=1e9)]


class SettingsInvalid(Exception):
    """Settings cannot be used; says which key, from where, and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSection(_Section):
    """Listeners and their bounds."""

    listen: str = "127.0.0.1:50051"
    """Data listener: `host:port` or `unix:/path`. Port 0 takes a free one, which the log names.

    With several workers it is the first one's; the others take the ports after it, or `/path.1` and so on."""
    service_listen: str = "127.0.0.1:51051"
    """Service listener: reports of orders and fills, portfolio, trading state; as `listen`. Empty: none."""
    admin_listen: str = ""
    """Admin listener: what a person does to the desk; `unix:/path` (mode 0600), or `host:port` with mTLS.

    Empty: `admin.sock` in the journal's folder, and none where no journal is kept; `none`: none."""
    advertise_host: str = ""
    """Host that clients reach the workers by, for the topology; empty: the one that is listened on."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes, each with its own listener, journal and symbols; about one a core."""
    transport: Literal["auto", "aio", "queue"] = "auto"
    """`queue` polls gRPC's own queue (fast, private to grpcio), `aio` is grpcio's public server.

    `auto` is `queue` where it was tested with this grpcio."""
    busy_poll_us: Annotated[int, Field(ge=0, le=10_000)] = 150
    """Transport `queue`: where the next request usually comes within so long, wait for it awake; 0: never."""
    realtime_priority: Annotated[int, Field(ge=0, le=99)] = 0
    """SCHED_RR priority of the thread that answers and of the one that ends slow models' runs; 0: as any other.

    It takes CAP_SYS_NICE or RLIMIT_RTPRIO, and more cores than workers: such a thread yields to no ordinary one."""
    tls_certificate: Path | None = None
    """PEM file; with `tls_key` the listeners speak TLS, but for an admin listener on a Unix socket."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """PEM file; a client must show a certificate that it signed."""
    metrics_listen: str = "127.0.0.1:9464"
    """Prometheus endpoint of the observer, `host:port`; empty: none."""
    max_message_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    """A larger request is answered RESOURCE_EXHAUSTED by gRPC."""
    max_concurrent_requests: Annotated[int, Field(ge=1)] = 1024
    """Unary requests and streams at once; what is beyond is answered RESOURCE_EXHAUSTED by gRPC."""
    drain_s: Seconds = 10.0
    """How long requests in flight may take to finish after SIGTERM."""

    @model_validator(mode="after")
    def _tls_whole(self) -> "ServerSection":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @model_validator(mode="after")
    def _admin_private(self) -> "ServerSection":
        if self.admin_listen not in {"", "none"} and not self.admin_listen.startswith("unix:"):
            if ":" not in self.admin_listen:
                raise ValueError(f"admin_listen: expected unix:/path, host:port or none, got {self.admin_listen!r}")
            if self.tls_client_ca is None:
                raise ValueError(
                    f"admin_listen is {self.admin_listen!r}: over TCP it needs mTLS, tls_client_ca with"
                    " tls_certificate and tls_key; unix:/path needs none"
                )
        return self

    @model_validator(mode="after")
    def _ports_for_all(self) -> "ServerSection":
        named = {"listen": self.listen, "service_listen": self.service_listen, "admin_listen": self.admin_listen}
        named = {key: listen for key, listen in named.items() if listen not in {"", "none"}}
        if self.workers > 1:
            for key, listen in named.items():
                worker_address(listen, self.workers - 1, key)
        taken: dict[str, str] = {}
        for key, listen in named.items():
            addresses = [worker_address(listen, i, key) for i in range(self.workers)] if self.workers > 1 else [listen]
            for address in addresses:
                if not address.endswith(":0") and taken.setdefault(address, key) != key:
                    raise ValueError(f"{taken[address]} and {key} both have {address}")
        return self


class ModelsSection(_Section):
    """The model repository."""

    repository: Path = Path("models")
    default: str = ""
    """What an empty `model` in a request means; empty: the only model, where there is one."""
    inline_limit_us: Annotated[float, Field(ge=0.0)] = 500.0
    """A model whose p99 at warm-up is above runs on a thread of its own, so that it delays no other."""
    queue_limit: Annotated[int, Field(ge=1, le=1024)] = 32
    """Most requests that wait for such a model; what is beyond is answered RESOURCE_EXHAUSTED at once."""
    standing_limit: Annotated[int, Field(ge=1, le=1024)] = 1
    """The same while the model is busy for most of the time: then a queue makes answers old, and not more."""
    load_limit_s: Annotated[float, Field(gt=0.0, le=3600.0)] = 120.0
    """A version whose checks take longer, while the server serves, has failed to load."""
    follow_s: Annotated[float, Field(ge=0.0, le=3600.0)] = 0.5
    """How often the models' aliases.json are looked at, so that what others change takes effect here; 0: never."""
    watch: bool = False
    """Load versions that appear in the repository by themselves; else they are loaded when asked for, or named by an
    alias."""


class InferenceSection(_Section):
    """The Open Inference Protocol: any ONNX model of the repository, without features, gate and journal."""

    enabled: bool = False
    """Serve it on the service listener, and its repository calls on the admin listener."""
    load: Literal["all", "none"] = "all"
    """Which models of the repository are loaded at the start; the others when RepositoryModelLoad asks for them."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """That run models, all of them together; each gives way to the thread that answers."""
    queue_limit: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Most requests that wait for one; what is beyond is answered RESOURCE_EXHAUSTED at once."""
    longest_s: Annotated[float, Field(gt=0.0, le=86_400.0)] = 30.0
    """What a request may take, waiting included, where it and its caller's deadline do not say less."""
    max_answer_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    """Of an answer's tensors; what is larger is answered RESOURCE_EXHAUSTED."""


class InstrumentsSection(_Section):
    """The universe."""

    file: Path | None = None
    """TOML or CSV; without one every symbol is open with defaults."""
    closed: bool = False
    """Only instruments of the file are served."""
    capacity: Annotated[int, Field(ge=1, le=65_536)] = 4096
    """Most symbols."""


class ClockSection(_Section):
    """What time it is for ticks."""

    mode: Literal["live", "replay"] = "live"
    """`replay`: time is the ticks' own, none is late or early."""
    future_limit_s: Seconds = 1.0
    stale_limit_s: Seconds = 5.0
    feature_age_limit_s: Seconds | None = None
    """How old a symbol's latest tick, or a vector of the caller's, may be in a request without a tick; none:
    `stale_limit_s`."""

    @property
    def features_s(self) -> float:
        """The age limit in force for requests without a tick."""
        return self.stale_limit_s if self.feature_age_limit_s is None else self.feature_age_limit_s


class TicksSection(_Section):
    """What a tick has to be like."""

    price_jump_sigmas: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 10.0
    """A trade whose absolute log return is above so many EWMA volatilities a trade is held back; 0: none is."""
    price_jump_least: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.005
    """And above this."""


class FeedSection(_Section):
    """One feed of published ticks."""

    reorder_window_ms: Annotated[float, Field(ge=0.0, le=60_000.0)] = 0.0
    """Ticks wait so long for others that belong before them by `exchange_ts_ns` and sequence; 0: late ones are
    rejected."""


class IngestSection(_Section):
    """Ticks that are published through MarketDataService."""

    queue_ticks: Annotated[int, Field(ge=65_536, le=16_777_216)] = 131_072
    """Most that wait, about 100 bytes each; what is beyond is answered RESOURCE_EXHAUSTED, or not read yet."""
    conflate: bool = False
    """While more than half of them wait, drop those that a later tick of their symbol supersedes."""
    window_ticks: Annotated[int, Field(ge=1, le=16_777_216)] = 65_536
    """Most ticks that one reorder window holds; at the bound the oldest go on early."""
    slice_us: Annotated[int, Field(ge=10, le=10_000)] = 60
    """How long ticks are applied before a request has its turn."""
    feeds: dict[str, FeedSection] = {}
    """By the name that a publisher gives its feed."""

    @field_validator("feeds")
    @classmethod
    def _named(cls, feeds: dict[str, FeedSection]) -> dict[str, FeedSection]:
        for name in feeds:
            if not 0 < len(name.encode()) <= FEED_BYTES:
                raise ValueError(f"feeds: expected names of 1 to {FEED_BYTES} bytes, got {name!r}")
        return feeds


class JournalSection(_Section):
    """The journal of every input and decision."""

    folder: Path | None = Path("journal")
    """Its own, one server at a time; `none` keeps no journal. On tmpfs the disk is never waited for."""
    segment_records: Annotated[int, Field(ge=1024, le=4_194_304)] = 65_536
    """Records of a segment, 768 bytes each."""
    retained_segments: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Older ones are removed."""

    @field_validator("folder", mode="before")
    @classmethod
    def _none(cls, folder: Any) -> Any:
        return None if folder in ("", "none") else folder


class DeskSection(_Section):
    """What stands around the limits of `[risk]`."""

    limits_file: Path | None = None
    """TOML of its own with the keys of `[risk]` and a `version`, in place of them: read again by SIGHUP and
    `tickgate risk reload`."""
    kill_file: Path | None = None
    """While it is there the desk is HALTED, and stays so until a person resumes."""
    fsync_reports: bool = False
    """Flush orders, fills and states to the disk before they are acknowledged: against the host's death, for
    milliseconds each."""
    risk_data: Path | None = None
    """First risk data, as training writes them, where the journal's folder has none; empty: `risk-data.npz` in the
    model repository, if it is there."""


class FundamentalsSection(_Section):
    """Slow values of the symbols, for models whose feature set has `+fundamentals` in its name."""

    file: Path | None = None
    """CSV, JSON (`.json`) or Parquet (`.parquet`, read by polars), a row a value; without `file`, `url` and `store`
    such models are never ready."""
    url: str = ""
    """`http://` or `https://`, in place of `file`: JSON, CSV or Parquet by its content type."""
    store: bool = False
    """In place of both: what `tickgate fundamentals push` wrote into the Redis of `[store]`."""
    refresh_s: Annotated[float, Field(gt=0.0, le=86_400.0)] = 60.0
    """Between two looks at whether they changed."""
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0
    """Of `url`: for a connection, and for each piece of an answer."""
    body_limit_mb: Annotated[int, Field(ge=1, le=1024)] = 64
    """Of `url`: most that is taken of an answer, unpacked; a longer one is refused."""
    token_file: Path | None = None
    """Of `url`: file with the token that is sent as `Authorization: Bearer`."""
    symbol: str = "symbol"
    """The column with the symbol."""
    name: str = "name"
    """The column that names what the value is."""
    value: str = "value"
    """The column with the value."""
    as_of: str = "as_of_ns"
    """The column that says when the value became known."""
    as_of_unit: Literal["ns", "us", "ms", "s", "iso"] = "ns"
    """What its numbers count from the Unix epoch; `iso`: it is ISO 8601 text, or a date-time type."""
    time_zone: str | None = None
    """What an `iso` time without an offset means; empty: each carries its own."""

    @property
    def named(self) -> bool:
        """Whether there is any source."""
        return self.file is not None or bool(self.url) or self.store

    @model_validator(mode="after")
    def _one_source(self) -> "FundamentalsSection":
        if (self.file is not None) + bool(self.url) + self.store > 1:
            raise ValueError("file, url and store: expected one of them")
        if self.url:
            parts = urlsplit(self.url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
                raise ValueError("url: expected http:// or https:// and a host, without a user; see token_file")
        elif self.token_file is not None:
            raise ValueError("token_file goes with url")
        return self

    @model_validator(mode="after")
    def _zone_known(self) -> "FundamentalsSection":
        if self.time_zone is None:
            return self
        if self.as_of_unit != "iso":
            raise ValueError(f"time_zone goes with as_of_unit 'iso' only: {self.as_of_unit!r} counts from the epoch")
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError) as error:  # its not-found error is a KeyError
            raise ValueError(f"time_zone {self.time_zone!r} is no time zone of the IANA database") from error
        return self


class WorkerSection(_Section):
    """Which worker of a server this process is; set by the server that starts it."""

    index: Annotated[int, Field(ge=0)] = 0
    count: Annotated[int, Field(ge=1, le=256)] = 1

    @model_validator(mode="after")
    def _one_of_them(self) -> "WorkerSection":
        if self.index >= self.count:
            raise ValueError(f"index is {self.index}, must be below count, {self.count}")
        return self


class ObserverSection(_Section):
    """What follows the journal: metrics, and the control block beside its segments."""

    mode: Literal["process", "thread", "none"] = "process"
    """`thread` is for tests and embedding: in CPython a busy thread can hold an answer up for milliseconds."""


class ShadowSection(_Section):
    """What scores the recorded vectors with versions that never answer."""

    mode: Literal["process", "none"] = "process"
    """`process`: one of its own, there while the repository names a shadow; it takes a journal."""
    scheduling: Literal["idle", "normal"] = "idle"
    """`idle`: it runs only where nobody else wants the core, and lags where there is none; `normal`: as any process."""
    retained_comparisons: Annotated[int, Field(ge=65_536)] = 1_048_576
    """Comparisons of each version that are kept one by one, 104 bytes each; its record counts all there ever were."""


class ArchiveSection(_Section):
    """The decision log: journals as Parquet, written by a process of its own."""

    folder: Path | None = None
    """Where it is kept, of one server; empty or `none`: no log is kept. It takes a journal."""
    flush_s: Annotated[float, Field(ge=0.05, le=86_400.0)] = 30.0
    """Longest that a row waits for its file: `tickgate query` reads the journal beside the log, so nobody waits."""
    flush_rows: Annotated[int, Field(ge=1024, le=4_194_304)] = 131_072
    """Most rows of a journal that wait."""
    rows_a_file: Annotated[int, Field(ge=1024, le=67_108_864)] = 4_194_304
    """Most rows of a merged file, about; 100 to 300 bytes each on the disk."""
    retention_days: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Days that are kept, counted back from the newest; 0: all."""
    merge: bool = True
    """Merge small files of a day into large ones."""
    ticks: bool = True
    """Keep published ticks too."""
    scheduling: Literal["idle", "normal"] = "idle"
    """`idle`: it runs only where nobody else wants the core, and lags where there is none; `normal`: as any process."""

    @field_validator("folder", mode="before")
    @classmethod
    def _none(cls, folder: Any) -> Any:
        return None if folder in ("", "none") else folder


class LogSection(_Section):
    """Structured logs on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, else JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """Everything that a server is configured with."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    server: ServerSection = ServerSection()
    models: ModelsSection = ModelsSection()
    inference: InferenceSection = InferenceSection()
    instruments: InstrumentsSection = InstrumentsSection()
    clock: ClockSection = ClockSection()
    ticks: TicksSection = TicksSection()
    ingest: IngestSection = IngestSection()
    journal: JournalSection = JournalSection()
    observer: ObserverSection = ObserverSection()
    alerts: AlertSettings = AlertSettings()
    shadow: ShadowSection = ShadowSection()
    archive: ArchiveSection = ArchiveSection()
    risk: Limits = Limits()
    desk: DeskSection = DeskSection()
    risk_values: RiskValueSettings = RiskValueSettings()
    fundamentals: FundamentalsSection = FundamentalsSection()
    promotion: PromotionLimits = PromotionLimits()
    store: StoreSettings = StoreSettings()
    worker: WorkerSection = WorkerSection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _limits_once(self) -> "Settings":
        if self.desk.limits_file is not None and self.risk != Limits():
            raise ValueError("desk.limits_file stands in place of [risk]: expected one of the two")
        return self

    @model_validator(mode="after")
    def _fundamentals_have_a_store(self) -> "Settings":
        if self.fundamentals.store and self.store.mode == "none":
            raise ValueError("fundamentals.store needs store.mode: which Redis they were pushed into")
        return self

    @model_validator(mode="after")
    def _store_has_journal(self) -> "Settings":
        if self.store.mode != "none" and self.journal.folder is None:
            raise ValueError("store.mode needs journal.folder: the store is written from the journal")
        return self

    @model_validator(mode="after")
    def _alerts_by_somebody(self) -> "Settings":
        if self.alerts.wanted and (self.journal.folder is None or self.observer.mode == "none"):
            which = "journal.folder" if self.journal.folder is None else "observer.mode"
            raise ValueError(f"alerts are the observer's, which sees in the journal what is wrong, and {which} is none")
        return self

    @model_validator(mode="after")
    def _inference_somewhere(self) -> "Settings":
        if self.inference.enabled and not self.server.service_listen:
            raise ValueError("inference.enabled needs server.service_listen: it is served there")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What `load` hands over is merged already: it asks each source itself, to know what came from where."""
        return (init_settings,)


def load(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> tuple[Settings, dict[str, str]]:
    """Build the settings, and say where each value came from.

    Args:
        file: TOML, or none.
        overrides: From the command line, by dotted key (`server.listen`).

    Returns:
        The settings, and by dotted key one of `command line`, `environment`, the file's path, or `default`.

    Raises:
        SettingsInvalid: Names the key, its source, and what was expected.
    """
    layers: dict[str, dict[str, Any]] = {}  # each overrides those before it
    if file is not None:
        layers[str(file)] = _file(file)
    layers["environment"] = _environment()
    layers["command line"] = dict(overrides or {})
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in layers.items():
        found = dict(_leaves(values))
        merged |= found
        origins |= dict.fromkeys(found, origin)
    try:
        settings = Settings(**_nested(merged))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        within = {origin for known, origin in origins.items() if known.startswith(f"{key}.")}
        origin = origins.get(key) or ", ".join(sorted(within)) or "settings"
        raise SettingsInvalid(f"{origin}: {key}: {first['msg']} (got {_masked(key, first['input'])!r})") from error
    return settings, {key: origins.get(key, "default") for key in flatten(settings)}


def worker_address(listen: str, index: int, key: str = "listen") -> str:
    """Where a worker listens: the ports from `listen`'s on, a free one each for port 0, or `/path.index`.

    Args:
        listen: The server's.
        index: The worker's.
        key: The setting that `listen` is, for the error.

    Raises:
        ValueError: It is neither `host:port` nor `unix:/path`, or there is no such port.
    """
    if listen.startswith("unix:"):
        return f"{listen}.{index}"
    host, _, number = listen.rpartition(":")
    if not (host and number.isdecimal()):
        raise ValueError(f"several workers need {key} to be host:port or unix:/path, got {listen!r}")
    port = int(number)
    if port == 0:
        return listen
    if port + index > 65_535:
        raise ValueError(f"worker {index} of {key} {listen!r} would have port {port + index}, the last is 65535")
    return f"{host}:{port + index}"


def admin_address(settings: Settings) -> str:
    """Where the admin listener of a server of one process, or of one worker, is; empty: it has none."""
    listen, folder = settings.server.admin_listen, settings.journal.folder
    if listen == "none":
        return ""
    if listen or folder is None:
        return listen
    return f"unix:{(folder / ADMIN_SOCKET).absolute()}"


def flatten(settings: Settings) -> dict[str, Any]:
    """Every value by its dotted key."""
    return dict(_leaves(settings.model_dump(mode="json")))


def _masked(key: str, value: Any) -> Any:
    """A value as an error may show it: what is, or holds, a password is not."""
    if isinstance(value, Mapping):
        return {name: _masked(name, inner) for name, inner in value.items()}
    return "**********" if value and key.endswith("password") else value


def _file(file: Path) -> dict[str, Any]:
    if not file.is_file():  # the library's source takes an absent file for an empty one
        raise SettingsInvalid(f"{file}: no such file")
    try:
        return TomlConfigSettingsSource(Settings, toml_file=file)()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"{file}: cannot be read ({error})") from error


def _environment() -> dict[str, Any]:
    sections = tuple(f"{PREFIX}{name.upper()}{NESTED}" for name in Settings.model_fields)
    for name in os.environ:
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS and not name.startswith(sections):
            raise SettingsInvalid(
                f"environment: {name} is no setting; its name starts with one of {', '.join(sections)}"
            )
    return EnvSettingsSource(Settings)()


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`section.key` to sections; a key without a section stays at the top, for validation to refuse."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, leaf = key.partition(".")
        if leaf:
            inner = tree.setdefault(section, {})
            if isinstance(inner, dict):  # else another source says that the section is a value: refused as such
                inner[leaf] = value
        else:
            tree[section] = value
    return tree


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each value by `section.key`; what names things of its own, symbols or feeds, is one value."""
    for section, values in tree.items():
        if isinstance(values, Mapping):
            yield from ((f"{section}.{key}", value) for key, value in values.items())
        else:
            yield section, values
