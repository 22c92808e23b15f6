"""A client that binds options, for programs that speak to several servers or as several users."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._async.sandbox import AsyncSandbox
from ._sync.sandbox import Sandbox
from .config import ApiParams
from .to_come import AsyncSecret, AsyncTemplate, AsyncVolume, Secret, Template, Volume

if TYPE_CHECKING:
    from typing import Unpack

SandboxT = TypeVar("SandboxT", AsyncSandbox, Sandbox)


class E2BClientParams(ApiParams, total=False):
    """Options of a client: those of every call."""


class E2B:
    """The SDK's classes with options of their own: `E2B(api_key="…").Sandbox.create()`.

    An option of a call wins over the client's, which wins over the environment.
    """

    def __init__(self, **opts: Unpack[E2BClientParams]) -> None:
        self.Sandbox = _bind(Sandbox, opts)
        self.AsyncSandbox = _bind(AsyncSandbox, opts)
        self.Template = Template
        self.AsyncTemplate = AsyncTemplate
        self.Volume = Volume
        self.AsyncVolume = AsyncVolume
        self.Secret = Secret
        self.AsyncSecret = AsyncSecret


def _bind(cls: type[SandboxT], options: ApiParams) -> type[SandboxT]:
    return type(cls.__name__, (cls,), {"_defaults": options, "__module__": cls.__module__})
