"""Calls to the admin listeners about models."""

import time
from collections.abc import Iterator

from tickgate.v1 import (
    ListModelsRequest,
    ListModelsResponse,
    LoadModelRequest,
    LoadModelResponse,
    ModelAlias,
    ModelServiceStub,
    RollBackRequest,
    RollBackResponse,
    SetAliasRequest,
    SetAliasResponse,
    SetCanaryRequest,
    SetCanaryResponse,
    SetShadowRequest,
    SetShadowResponse,
    UnloadModelRequest,
    UnloadModelResponse,
    WatchModelsRequest,
    WatchModelsResponse,
)
from tickgate_server.rpc.admin_client import AdminClient, Outcome, Worker

_LOOK_AGAIN_S = 0.05


class ModelClient(AdminClient):
    """See `AdminClient`. Loading and unloading go to every worker; aliases to one, and the others follow."""

    def models(self, name: str = "") -> list[Outcome[ListModelsResponse]]:
        """The versions and aliases that each worker knows, of one model or of all."""
        return self._ask(lambda channel: ModelServiceStub(channel).ListModels, ListModelsRequest(name=name))

    def load(self, name: str, version: int, reason: str, who: str) -> list[Outcome[LoadModelResponse]]:
        """Have every worker load a version."""
        request = LoadModelRequest(name=name, version=version, reason=reason, who=who)
        return self._ask(lambda channel: ModelServiceStub(channel).LoadModel, request)

    def unload(
        self, name: str, version: int, reason: str, who: str, *, force: bool
    ) -> list[Outcome[UnloadModelResponse]]:
        """Have every worker let go of a version."""
        request = UnloadModelRequest(name=name, version=version, reason=reason, who=who, force=force)
        return self._ask(lambda channel: ModelServiceStub(channel).UnloadModel, request)

    def promote(
        self, worker: Worker, name: str, version: int, expected: int, reason: str, who: str, override: str
    ) -> Outcome[SetAliasResponse]:
        """Have production mean a version."""
        request = SetAliasRequest(
            name=name,
            alias=ModelAlias.MODEL_ALIAS_PRODUCTION,
            version=version,
            expected_version=expected,
            reason=reason,
            who=who,
            override=override,
        )
        (outcome,) = self._ask(lambda channel: ModelServiceStub(channel).SetAlias, request, only=worker)
        return outcome

    def roll_back(self, worker: Worker, name: str, expected: int, reason: str, who: str) -> Outcome[RollBackResponse]:
        """Have production mean the version before."""
        request = RollBackRequest(name=name, expected_version=expected, reason=reason, who=who)
        (outcome,) = self._ask(lambda channel: ModelServiceStub(channel).RollBack, request, only=worker)
        return outcome

    def set_canary(
        self, worker: Worker, name: str, version: int, expected: int, share_percent: float, reason: str, who: str
    ) -> Outcome[SetCanaryResponse]:
        """Have a version answer for a share of the symbols; version 0: none."""
        request = SetCanaryRequest(
            name=name, version=version, expected_version=expected, share_percent=share_percent, reason=reason, who=who
        )
        (outcome,) = self._ask(lambda channel: ModelServiceStub(channel).SetCanary, request, only=worker)
        return outcome

    def set_shadow(
        self, worker: Worker, name: str, version: int, expected: int, reason: str, who: str
    ) -> Outcome[SetShadowResponse]:
        """Have a version score what production answers; version 0: none."""
        request = SetShadowRequest(name=name, version=version, expected_version=expected, reason=reason, who=who)
        (outcome,) = self._ask(lambda channel: ModelServiceStub(channel).SetShadow, request, only=worker)
        return outcome

    def follow(self, name: str, revision: int) -> list[Outcome[ListModelsResponse]]:
        """Wait until every worker has a revision of a model's aliases, no longer than for an answer.

        Returns:
            What each knew last.
        """
        until_s = time.monotonic() + self._timeout_s
        while True:
            found = self.models(name)
            # A worker that cannot be asked is not waited for.
            if all(outcome.error or self.has(outcome, revision) for outcome in found) or time.monotonic() >= until_s:
                return found
            time.sleep(_LOOK_AGAIN_S)

    @staticmethod
    def has(outcome: Outcome[ListModelsResponse], revision: int) -> bool:
        """Whether a worker that was asked about one model knows a revision of its aliases."""
        return outcome.response is not None and any(one.revision >= revision for one in outcome.response.aliases)

    def watch(self, name: str = "") -> Iterator[Outcome[WatchModelsResponse]]:
        """Every worker's models, now and each change; an error is the last of its worker."""
        return self._follow(lambda channel: ModelServiceStub(channel).WatchModels, WatchModelsRequest(name=name))
