"""`ModelService`: which versions are loaded and which the aliases mean, over the models of one engine."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import structlog
from google.protobuf.message import Message

from tickgate.v1 import model_pb2 as pb
from tickgate_server.errors import FieldInvalid
from tickgate_server.model_operations import ModelOperations
from tickgate_server.models.aliases import Aliases, AliasName
from tickgate_server.models.errors import ModelNotFound, VersionMissing
from tickgate_server.models.package import is_name, read_manifest
from tickgate_server.models.promotion import PromotionLimits, RuleResult, failures, judge_promotion
from tickgate_server.rpc.elsewhere import Elsewhere
from tickgate_server.rpc.methods import (
    LaterMethod,
    Method,
    UnaryMethod,
    WatchMethod,
    enum_member,
    handler,
    later_handler,
)
from tickgate_server.rpc.model_board import ModelBoard
from tickgate_server.rpc.model_messages import alias_name, rule_message

_LOG = structlog.get_logger()

MODEL_NAME: str = pb.DESCRIPTOR.services_by_name["ModelService"].full_name
_NOBODY = "unknown"

_Found = TypeVar("_Found")
Done: TypeAlias = Callable[[Message | Exception], None]


@dataclass(frozen=True, slots=True)
class PromotionTerms:
    """What versions are held to that are to be production, and where that is looked up.

    Attributes:
        repository: Folder of the packages.
        journal: Folder of the server's journal, which shadows' records are beside; None: it keeps none.
        limits: Of the rules.
    """

    repository: Path
    journal: Path | None
    limits: PromotionLimits


@dataclass(frozen=True, slots=True)
class _Change:
    """What an alias is to mean.

    Attributes:
        name: Of the model.
        alias: Which.
        version: None: nothing any more.
        expected: What it means as far as the caller knows; None: nothing.
        reason, who: Why, and by whom.
        share_percent: Of a canary.
        override: Why a version is promoted that does not pass the rules; empty: it must pass.
        rules: Of a promotion, what each found.
    """

    name: str
    alias: AliasName
    version: int | None
    expected: int | None
    reason: str
    who: str
    share_percent: float = 0.0
    override: str = ""
    rules: tuple[RuleResult, ...] = ()


class Models:
    """The service's methods over one engine's models.

    Args:
        running: The models.
        board: What is told of them.
        terms: Of promotion.
        elsewhere: What reads files.
    """

    def __init__(
        self,
        running: ModelOperations,
        board: ModelBoard,
        terms: PromotionTerms,
        elsewhere: Elsewhere,
    ) -> None:
        self._running = running
        self._board = board
        self._terms = terms
        self._elsewhere = elsewhere

    def methods(self) -> tuple[Method, ...]:
        """All of them."""
        return (
            UnaryMethod(_path("ListModels"), handler(pb.ListModelsRequest, self._list)),
            LaterMethod(_path("LoadModel"), later_handler(pb.LoadModelRequest, self._load)),
            LaterMethod(_path("UnloadModel"), later_handler(pb.UnloadModelRequest, self._unload)),
            LaterMethod(_path("SetAlias"), later_handler(pb.SetAliasRequest, self._set_alias)),
            LaterMethod(_path("RollBack"), later_handler(pb.RollBackRequest, self._roll_back)),
            LaterMethod(_path("SetCanary"), later_handler(pb.SetCanaryRequest, self._set_canary)),
            LaterMethod(_path("SetShadow"), later_handler(pb.SetShadowRequest, self._set_shadow)),
            WatchMethod(_path("WatchModels"), self._board.watch),
        )

    def _list(self, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        found = self._board.everything(request.name)
        if request.name and not found.versions:
            raise ModelNotFound(request.name, ", ".join(self._board.names()) or "none")
        return found

    # -- versions --------------------------------------------------------------------------------------------------

    def _load(self, request: pb.LoadModelRequest, done: Done) -> None:
        name, version = _name(request.name), _version(request.version)
        reason, who = _told(request.reason), request.who or _NOBODY
        _LOG.info("model to be loaded", model=name, version=version, reason=reason, who=who)
        loaded = _then(done, lambda _: done(pb.LoadModelResponse(version=self._board.version(name, version))))
        found = _then(done, lambda _: self._running.load(name, version, loaded))
        self._elsewhere.run(partial(self._folder, name, version), found)

    def _unload(self, request: pb.UnloadModelRequest, done: Done) -> None:
        name, version = _name(request.name), _version(request.version)
        reason, who = _told(request.reason), request.who or _NOBODY
        _LOG.info("model to be unloaded", model=name, version=version, force=request.force, reason=reason, who=who)
        unloaded = _then(done, lambda _: done(pb.UnloadModelResponse()))
        self._running.unload(name, version, unloaded, force=request.force)

    # -- aliases ---------------------------------------------------------------------------------------------------

    def _set_alias(self, request: pb.SetAliasRequest, done: Done) -> None:
        alias = enum_member("alias", request.alias, alias_name, pb.ModelAlias)
        name, share = _name(request.name), 0.0
        if alias == "canary":
            canary = self._running.aliases(name).canary
            if canary is None:
                raise FieldInvalid("alias", "that of a canary there is: SetCanary gives it its share", "canary")
            share = canary.share_percent
        change = _Change(
            name,
            alias,
            _version(request.version),
            request.expected_version or None,
            _told(request.reason),
            request.who or _NOBODY,
            share,
            _override(request.override, alias),
        )

        def changed(made: _Change, aliases: Aliases) -> None:
            rules = [rule_message(rule) for rule in made.rules]
            done(pb.SetAliasResponse(aliases=self._board.aliases(name, aliases), rules=rules))

        self._begin(change, done, changed)

    def _set_canary(self, request: pb.SetCanaryRequest, done: Done) -> None:
        share = request.share_percent
        if request.version and not 0.0 < share <= 100.0:
            raise FieldInvalid("share_percent", "over 0 to 100", share)
        if not request.version and share:
            raise FieldInvalid("share_percent", "0 where there is to be no canary", share)
        change = self._plain("canary", request, share)
        self._begin(
            change,
            done,
            lambda _, found: done(pb.SetCanaryResponse(aliases=self._board.aliases(change.name, found))),
        )

    def _set_shadow(self, request: pb.SetShadowRequest, done: Done) -> None:
        change = self._plain("shadow", request)
        self._begin(
            change,
            done,
            lambda _, found: done(pb.SetShadowResponse(aliases=self._board.aliases(change.name, found))),
        )

    def _plain(
        self, alias: AliasName, request: pb.SetCanaryRequest | pb.SetShadowRequest, share_percent: float = 0.0
    ) -> _Change:
        return _Change(
            _name(request.name),
            alias,
            request.version or None,
            request.expected_version or None,
            _told(request.reason),
            request.who or _NOBODY,
            share_percent,
        )

    def _begin(self, change: _Change, done: Done, changed: Callable[[_Change, Aliases], None]) -> None:
        """Judge a promotion, have the version loaded, and then change the alias; each in its turn."""
        swap = partial(self._swap, done=done, changed=changed)
        if change.version is None:
            swap(change)
            return
        ready = partial(self._when_ready, done=done, then=swap)
        self._elsewhere.run(partial(self._looked_at, change), _then(done, ready))

    def _looked_at(self, change: _Change) -> _Change:
        """The change, with the rules where it is a promotion; on a thread that reads files.

        Raises:
            VersionMissing: There is no such version on disk.
            PackageError: Its manifest cannot be used.
            PromotionRefused: It does not pass the rules, and there is no override.
        """
        folder = self._folder(change.name, change.version or 0)
        if change.alias != "production":
            return change
        manifest = read_manifest(folder)
        rules = judge_promotion(manifest, self._terms.journal, change.expected, self._terms.limits, change.override)
        # An override that nothing needed is none.
        return replace(change, rules=rules, override=change.override if failures(rules) else "")

    def _folder(self, name: str, version: int) -> Path:
        """Where a version is on disk; raises `VersionMissing` where it is not."""
        folder = self._terms.repository / name / str(version)
        if not folder.is_dir():
            raise VersionMissing(name, version)
        return folder

    def _when_ready(self, change: _Change, *, done: Done, then: Callable[[_Change], None]) -> None:
        # A shadow is loaded by who scores it, and need not be here.
        if change.alias == "shadow" or change.version is None or self._board.is_ready(change.name, change.version):
            then(change)
        else:
            self._running.load(change.name, change.version, _then(done, lambda _: then(change)))

    def _swap(self, change: _Change, *, done: Done, changed: Callable[[_Change, Aliases], None]) -> None:
        self._running.change_alias(
            change.name,
            change.alias,
            change.version,
            done=_then(done, partial(changed, change)),
            expected=change.expected,
            reason=change.reason,
            who=change.who,
            share_percent=change.share_percent,
            override=change.override,
        )

    def _roll_back(self, request: pb.RollBackRequest, done: Done) -> None:
        name, reason, who = _name(request.name), _told(request.reason), request.who or _NOBODY
        expected = request.expected_version or None

        def rolled_back(aliases: Aliases) -> None:
            done(pb.RollBackResponse(aliases=self._board.aliases(name, aliases)))

        def roll_back(_: object) -> None:
            self._running.roll_back(name, expected=expected, reason=reason, who=who, done=_then(done, rolled_back))

        # It is loaded as a rule; where it was unloaded meanwhile, what answers stays until it is loaded again.
        self._when_ready(
            _Change(name, "production", self._running.aliases(name).previous, expected, reason, who),
            done=done,
            then=roll_back,
        )


def _then(done: Done, respond: Callable[[_Found], None]) -> Callable[[_Found | Exception], None]:
    """What takes the result of one step: on to the next, or its error to the caller."""

    def settled(found: _Found | Exception) -> None:
        if isinstance(found, Exception):
            done(found)
            return
        try:
            respond(found)
        except Exception as error:  # noqa: BLE001 - the caller is told what the next step ended in
            done(error)

    return settled


def _name(name: str) -> str:
    if not is_name(name):
        raise FieldInvalid("name", "1 to 64 letters, digits, dots, dashes and underscores", name)
    return name


def _version(version: int) -> int:
    if version < 1:
        raise FieldInvalid("version", "an integer from 1", version)
    return version


def _told(reason: str) -> str:
    if not reason.strip():
        raise FieldInvalid("reason", "some words that say why", reason)
    return reason


def _override(override: str, alias: AliasName) -> str:
    if override and alias != "production":
        raise FieldInvalid("override", "none: only a promotion is held to rules", override)
    if override and not override.strip():
        raise FieldInvalid("override", "some words that say why, or none", override)
    return override


def _path(method: str) -> str:
    return f"/{MODEL_NAME}/{method}"
