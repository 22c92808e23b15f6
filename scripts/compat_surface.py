"""The public methods of the official Python package, found by looking at the installed one.

Both flavours of a class share one name here: `Sandbox` stands for `Sandbox` and `AsyncSandbox`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import e2b
import e2b.sandbox_async.commands.command as async_commands
import e2b.sandbox_async.commands.pty as async_pty
import e2b.sandbox_async.filesystem.filesystem as async_filesystem
import e2b.sandbox_async.git as async_git
import e2b.sandbox_sync.commands.command as sync_commands
import e2b.sandbox_sync.commands.pty as sync_pty
import e2b.sandbox_sync.filesystem.filesystem as sync_filesystem
import e2b.sandbox_sync.git as sync_git
from e2b.template.main import TemplateBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = {
    "L": "core lifecycle",
    "M": "metrics and logs",
    "process": "commands (envd)",
    "pty": "terminals (envd)",
    "filesystem": "directories, information and watching (envd)",
    "files": "contents of files (envd)",
    "git": "git helper",
    "proxy": "ports of a sandbox",
    "client": "clients with a configuration of their own",
    "S": "pause, snapshots, fork",
    "N": "network rules",
    "T": "templates",
    "V": "volumes",
    "X": "secrets",
    "MCP": "MCP gateway",
}
"""Capital letters are those of the protocol's endpoint groups; the others are what the SDKs do
without the API: over envd, through the proxy, or on their own."""

CLASSES: dict[str, dict[str, type]] = {
    "Sandbox": {"sync": e2b.Sandbox, "async": e2b.AsyncSandbox},
    "SandboxPaginator": {"sync": e2b.SandboxPaginator, "async": e2b.AsyncSandboxPaginator},
    "Commands": {"sync": sync_commands.Commands, "async": async_commands.Commands},
    "CommandHandle": {"sync": e2b.CommandHandle, "async": e2b.AsyncCommandHandle},
    "CommandInputHandle": {"async": e2b.AsyncCommandInputHandle},
    "Pty": {"sync": sync_pty.Pty, "async": async_pty.Pty},
    "Filesystem": {"sync": sync_filesystem.Filesystem, "async": async_filesystem.Filesystem},
    "WatchHandle": {"sync": e2b.WatchHandle, "async": e2b.AsyncWatchHandle},
    "Git": {"sync": sync_git.Git, "async": async_git.Git},
    "SnapshotPaginator": {"sync": e2b.SnapshotPaginator, "async": e2b.AsyncSnapshotPaginator},
    "Template": {"sync": e2b.Template, "async": e2b.AsyncTemplate},
    "TemplateBuilder": {"": TemplateBuilder},
    "Volume": {"sync": e2b.Volume, "async": e2b.AsyncVolume},
    "Secret": {"sync": e2b.Secret, "async": e2b.AsyncSecret},
    "SecretPaginator": {"sync": e2b.SecretPaginator, "async": e2b.AsyncSecretPaginator},
}
"""Classes that a user calls methods of, by flavour."""

_GROUP_OF_CLASS = {
    "Sandbox": "L",
    "SandboxPaginator": "L",
    "Commands": "process",
    "CommandHandle": "process",
    "CommandInputHandle": "process",
    "Pty": "pty",
    "Filesystem": "filesystem",
    "WatchHandle": "filesystem",
    "Git": "git",
    "SnapshotPaginator": "S",
    "Template": "T",
    "TemplateBuilder": "T",
    "Volume": "V",
    "Secret": "X",
    "SecretPaginator": "X",
    "E2B": "client",
}

_GROUP_OF_METHOD = {
    "Filesystem.read": "files",
    "Filesystem.write": "files",
    "Filesystem.write_files": "files",
    "Sandbox.beta_pause": "S",
    "Sandbox.create_snapshot": "S",
    "Sandbox.delete_snapshot": "S",
    "Sandbox.download_url": "files",
    "Sandbox.fork": "S",
    "Sandbox.get_host": "proxy",
    "Sandbox.get_mcp_token": "MCP",
    "Sandbox.get_mcp_url": "MCP",
    "Sandbox.get_metrics": "M",
    "Sandbox.list_snapshots": "S",
    "Sandbox.pause": "S",
    "Sandbox.update_network": "N",
    "Sandbox.upload_url": "files",
}
"""Those that belong elsewhere than their class."""


@dataclass(frozen=True, slots=True, order=True)
class Method:
    """A public method in one flavour."""

    name: str
    flavour: str


def python_surface() -> list[Method]:
    """Every public method of the installed `e2b`, and the classes that a client object offers."""
    methods = [
        Method(f"{name}.{method}", flavour)
        for name, flavours in CLASSES.items()
        for flavour, cls in flavours.items()
        for method in _public_methods(cls)
    ]
    return sorted([*methods, *_classes_of_a_client()])


def group_of(method: str) -> str:
    """The group that a method of the Python package is counted in. Raises KeyError."""
    return _GROUP_OF_METHOD.get(method) or _GROUP_OF_CLASS[method.partition(".")[0]]


def canonical_class(instance: object) -> str | None:
    """The shared name of the class of an object that methods are called of."""
    for name, flavours in CLASSES.items():
        if isinstance(instance, tuple(flavours.values())):
            return name
    return None


def _public_methods(cls: type) -> Iterator[str]:
    for name in dir(cls):
        is_property = isinstance(inspect.getattr_static(cls, name), property)
        if not name.startswith("_") and not is_property and callable(getattr(cls, name)):
            yield name


def _classes_of_a_client() -> Iterator[Method]:
    for name in vars(e2b.E2B(api_key="none")):
        is_async = name.startswith("Async")
        yield Method(f"E2B.{name.removeprefix('Async')}", "async" if is_async else "sync")
