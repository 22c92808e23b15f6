"""The command group; each command's module is imported when that command is called."""

from __future__ import annotations

import importlib
from typing import ClassVar

import click


class LazyGroup(click.Group):
    """A group that knows its commands by name, so that `--help` and start-up import none."""

    lazy: ClassVar[dict[str, tuple[str, str]]] = {
        "up": ("emberbox.cli.up:up", "Run all three servers on this machine."),
        "doctor": ("emberbox.cli.doctor:doctor", "Tell what this machine can run."),
        "api-server": ("emberbox.cli.servers:api_server", "Run the control plane."),
        "client-proxy": ("emberbox.cli.servers:client_proxy", "Run the data plane's edge."),
        "orchestrator": ("emberbox.cli.servers:orchestrator", "Run this host's VMs."),
        "team": ("emberbox.cli.team:team", "Make and list teams."),
        "key": ("emberbox.cli.key:key", "Make, list and revoke API keys."),
        "nodes": ("emberbox.cli.nodes:nodes", "List the hosts."),
        "node": ("emberbox.cli.nodes:node", "Drain or forget a host."),
        "events": ("emberbox.cli.events:events", "Tell what happened to sandboxes, and why."),
        "images": ("emberbox.cli.images:images", "Build and list kernel and root images."),
        "sandboxes": (
            "emberbox.cli.sandboxes:sandboxes",
            "List this host's sandboxes and where their starts' time went.",
        ),
        "snapshots": (
            "emberbox.cli.snapshots:snapshots",
            "List paused sandboxes and checkpoints with their sizes.",
        ),
        "version": ("emberbox.cli.commands:version", "Print the version."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order a newcomer needs them."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None when there is no such name."""
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.lazy[cmd_name][0]} is not a click command")
        return command

    def format_commands(
        self,
        ctx: click.Context,
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def emberbox() -> None:
    """Self-hosted microVM sandboxes that speak the E2B protocol."""


@click.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 - 10 ms, here only

    click.echo(installed("emberbox"))
