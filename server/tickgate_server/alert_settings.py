"""Settings of the observer's alerts: who receives them, and when conditions that are a matter of degree hold."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

_LABEL = re.compile(r"(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)=(?P<value>.+)")
_OWN = {"alertname", "severity", "service", "worker", "model", "version"}


class AlertSettings(BaseModel):
    """What the observer does about what it sees; docs/runbooks.md says what each alert means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alertmanagers: tuple[str, ...] = ()
    """Base URLs of Alertmanagers (`http://host:9093`): each is told of every alert by its v2 API. None: none is."""
    webhook: str = ""
    """URL that gets a POST with JSON for each alert that fires and for each that is resolved; empty: none."""
    webhook_authorization_file: Path | None = None
    """A file whose content is the Authorization header of these, read for each."""
    labels: tuple[str, ...] = ()
    """`name=value`, given to every alert: `env=prod`, say."""
    runbooks: str = "docs/runbooks.md"
    """Where the runbooks are: what comes before `#` in an alert's link."""
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 2.0
    """How long a receiver may take to answer."""
    resend_s: Annotated[float, Field(ge=1.0, le=3600.0)] = 30.0
    """How often an Alertmanager is told again what fires; after four times that in silence it takes it for resolved."""
    queue_limit: Annotated[int, Field(ge=1, le=65_536)] = 1024
    """Most notifications that wait for the webhook; what is beyond drops the oldest."""
    observer_lag_s: Annotated[float, Field(gt=0.0, le=3600.0)] = 5.0
    """An observer that has not read everything for longer is late."""
    journal_free_segments: Annotated[int, Field(ge=1, le=1024)] = 4
    """Room for fewer segments on the journal's file system is an alert: without a next one, requests are refused."""

    @property
    def wanted(self) -> bool:
        """Whether anybody receives alerts."""
        return bool(self.alertmanagers or self.webhook)

    @property
    def label_pairs(self) -> dict[str, str]:
        """`labels` by name."""
        pairs = (label.partition("=") for label in self.labels)
        return {name: value for name, _, value in pairs}

    @field_validator("alertmanagers", "webhook")
    @classmethod
    def _urls(cls, urls: tuple[str, ...] | str) -> tuple[str, ...] | str:
        for url in (urls,) if isinstance(urls, str) and urls else urls:
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"expected http://host:port or https://..., got {url!r}")
            if parts.username is not None:
                raise ValueError("expected no password in a URL, which others may see: use webhook_authorization_file")
        return urls

    @field_validator("labels")
    @classmethod
    def _pairs(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            found = _LABEL.fullmatch(label)
            if found is None:
                raise ValueError(f"expected name=value, got {label!r}")
            if found["name"] in _OWN:
                raise ValueError(f"expected a name that alerts have not themselves, got {found['name']!r}")
        return labels
