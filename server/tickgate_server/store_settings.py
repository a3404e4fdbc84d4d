"""The settings of the store: where Redis is, how it is spoken to, and what is kept there for how long."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

_SCHEMES = {"redis", "rediss", "unix"}


class StoreSettings(BaseModel):
    """Redis as level 2 of the feature store: vectors for others to read, states for a warm start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["none", "standalone", "sentinel", "cluster"] = "none"
    """`none`: no store. A server with one needs a journal: the store is written from it."""
    url: str = ""
    """`redis://`, `rediss://` (TLS) or `unix://`, of a standalone Redis, in place of `nodes`, `database`, `tls` and
    `user`; without a password, which has a setting of its own."""
    nodes: tuple[str, ...] = ()
    """`host:port`: the one of `standalone`, the sentinels, or nodes of the cluster to begin with."""
    master: str = ""
    """What the sentinels call the master."""
    database: Annotated[int, Field(ge=0)] = 0
    """Number of the database; a cluster has 0 alone."""
    user: str = ""
    """ACL user; empty: the default one."""
    password: SecretStr = SecretStr("")
    """Its password; better by TICKGATE_STORE__PASSWORD or `password_file` than in a file of settings."""
    password_file: Path | None = None
    """File with the password, without a line's end."""
    sentinel_user: str = ""
    """ACL user at the sentinels."""
    sentinel_password: SecretStr = SecretStr("")
    """Its password."""
    tls: bool = False
    """Speak TLS."""
    tls_ca: Path | None = None
    """PEM file that the server's certificate is signed with; empty: the system's authorities."""
    tls_certificate: Path | None = None
    """PEM file; own certificate, for a Redis that asks for one, with `tls_key`."""
    tls_key: Path | None = None
    connect_timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 1.0
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 1.0
    """What a reply may take; then the connection is given up."""
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    """After so many failures in a row Redis is left alone, but for a probe now and then."""
    breaker_longest_s: Annotated[float, Field(gt=0.0, le=3600.0)] = 2.0
    """Longest pause between two probes; the first is a twentieth of it."""
    prefix: str = ""
    """Before every key, for a Redis that others use too."""
    vector_ttl_s: Annotated[int, Field(ge=1, le=31_536_000)] = 300
    """How long a vector is kept."""
    state_ttl_s: Annotated[int, Field(ge=1, le=31_536_000)] = 604_800
    """How long a symbol's state is kept after its last tick was written."""
    history: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """Newest vectors of a symbol whose sequences are listed; 0: none."""
    write_interval_s: Annotated[float, Field(ge=0.01, le=3600.0)] = 1.0
    """How often the states are written that changed."""
    queue_limit: Annotated[int, Field(ge=1, le=16_777_216)] = 65_536
    """Most vectors that wait to be written; beyond, the oldest are dropped and counted."""
    scheduling: Literal["idle", "normal"] = "idle"
    """`idle`: its process runs only where nobody else wants the core; `normal`: as any process."""
    warm_start: bool = True
    """Begin with the states that are stored."""
    warm_start_limit_s: Annotated[float, Field(gt=0.0, le=600.0)] = 5.0
    """What a server's start may wait for them; then it begins without."""
    continuation_gap_s: Annotated[float, Field(ge=0.0, le=1e9)] = 5.0
    """A tick without a sequence goes on from a stored state if its stamp is at most so far behind the stored one."""

    @field_validator("url")
    @classmethod
    def _url_whole(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError("url: expected redis://, rediss:// or unix://")
        if parts.password is not None or "password" in parts.query:
            raise ValueError("url: expected no password in it; it goes into password or password_file")
        return url

    @field_validator("nodes")
    @classmethod
    def _nodes_whole(cls, nodes: tuple[str, ...]) -> tuple[str, ...]:
        for node in nodes:
            split_node(node)
        return nodes

    @field_validator("prefix")
    @classmethod
    def _prefix_without_braces(cls, prefix: str) -> str:
        if "{" in prefix or "}" in prefix:
            raise ValueError("prefix: expected no braces; those of the symbol choose the slot")
        return prefix

    @model_validator(mode="after")
    def _reachable(self) -> "StoreSettings":
        if self.mode == "none":
            return self
        if self.url and (self.mode != "standalone" or self.nodes):
            raise ValueError("url goes with mode standalone, and in place of nodes")
        if not self.url and not self.nodes:
            raise ValueError(f"mode {self.mode} needs nodes" + (", or url" if self.mode == "standalone" else ""))
        if self.mode == "standalone" and len(self.nodes) > 1:
            raise ValueError(f"mode standalone takes one of nodes, got {len(self.nodes)}")
        if (self.mode == "sentinel") != bool(self.master):
            raise ValueError("master goes with mode sentinel: what the sentinels call it")
        if self.mode == "cluster" and self.database:
            raise ValueError("database: a cluster has number 0 alone")
        return self

    @model_validator(mode="after")
    def _secrets_whole(self) -> "StoreSettings":
        if self.password.get_secret_value() and self.password_file is not None:
            raise ValueError("password and password_file: expected one of the two")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self

    def read_password(self) -> str | None:
        """The password, from its file if there is one; None: there is none.

        Raises:
            OSError: The file cannot be read.
            UnicodeDecodeError: It is no UTF-8.
        """
        if self.password_file is not None:
            return self.password_file.read_text("utf-8").rstrip("\r\n")
        return self.password.get_secret_value() or None

    def with_secrets(self) -> dict[str, object]:
        """All of it for another process of this server, the passwords included: for a pipe, never for a log."""
        secrets = {name: getattr(self, name).get_secret_value() for name in ("password", "sentinel_password")}
        return self.model_dump(mode="json") | secrets


def split_node(node: str) -> tuple[str, int]:
    """Host and port of `host:port`.

    Raises:
        ValueError: It is none.
    """
    host, _, port = node.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= 65_535:
        raise ValueError(f"nodes: expected host:port, got {node!r}")
    return host.strip("[]"), int(port)
