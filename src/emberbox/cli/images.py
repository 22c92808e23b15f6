"""`emberbox images`: make, list and remove the guest images of this machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from emberbox.orchestrator.images import (
    ImageStore,
    OwnKernel,
    current_hashes,
    ensure_images,
    ensure_kernel,
)
from emberbox.orchestrator.images.elf_kernel import elf_of
from emberbox.orchestrator.images.errors import BadSettingError
from emberbox.orchestrator.images.kernel import KERNEL
from emberbox.shared.home import Home, default_home
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.images import Image, Progress

_MIB = 1 << 20


class BarProgress:
    """Shows a build as one bar; on anything but a terminal, as a line for each step."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("guest images", total=1.0)

    def step(self, name: str, fraction: float | None) -> None:
        """Show a step of the build."""
        self._bar.update(self._task, description=name, completed=fraction)


class LineProgress:
    """Writes a line with the time for each step."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._begun = time.monotonic()

    def step(self, name: str, fraction: float | None) -> None:
        """Write the step; its fraction says nothing that the time does not."""
        del fraction
        self._write(f"{time.monotonic() - self._begun:7.1f} s  {name}")


def build_images(store: ImageStore, own_kernel: OwnKernel | None, *, refresh: bool) -> None:
    """Make the images with a progress bar on stderr. Raises ImageError."""
    if not sys.stderr.isatty():
        progress: Progress = LineProgress(lambda line: click.echo(line, err=True))
        ensure_images(store, progress, own_kernel=own_kernel, refresh=refresh)
        return
    columns = (TextColumn("{task.description:<48}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        ensure_images(store, BarProgress(bar), own_kernel=own_kernel, refresh=refresh)


@click.group()
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="EMBERBOX_HOME",
    help="Where Emberbox keeps its state.",
)
@click.option(
    "--kernel",
    type=click.Path(path_type=Path),
    envvar="EMBERBOX_KERNEL",
    help="A kernel of your own instead of Debian's.",
)
@click.option(
    "--kernel-modules",
    type=click.Path(path_type=Path),
    envvar="EMBERBOX_KERNEL_MODULES",
    help="Directory with the modules of --kernel.",
)
@click.pass_context
def images(
    ctx: click.Context, home: Path | None, kernel: Path | None, kernel_modules: Path | None
) -> None:
    """Build and list kernel and root images."""
    if kernel is None and kernel_modules is not None:
        raise BadSettingError("EMBERBOX_KERNEL_MODULES", kernel_modules, "needs EMBERBOX_KERNEL")
    own_kernel = None if kernel is None else OwnKernel(kernel, kernel_modules)
    ctx.obj = (ImageStore(Home(home or default_home()).images), own_kernel)


@images.command()
@click.option("--refresh", is_flag=True, help="Take newer packages when there are any.")
@click.pass_obj
def build(obj: tuple[ImageStore, OwnKernel | None], *, refresh: bool) -> None:
    """Make the images that are missing; nothing happens when all are there."""
    store, own_kernel = obj
    started = time.monotonic()
    build_images(store, own_kernel, refresh=refresh)
    click.echo(f"guest images are ready in {store.root} ({time.monotonic() - started:.1f} s)")


@images.command()
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file."
)
@click.pass_obj
def kernel(obj: tuple[ImageStore, OwnKernel | None], output: Path | None) -> None:
    """Extract the guest kernel as an uncompressed ELF file, which is what Firecracker boots.

    The driver does this by itself; the file is for looking at, or for another VMM.
    """
    store, own_kernel = obj
    image = ensure_kernel(
        store, LineProgress(lambda line: click.echo(line, err=True)), own_kernel=own_kernel
    )
    elf = elf_of(image.file(KERNEL))
    click.echo(f"Linux {image.manifest.facts['version']}: an ELF file of {len(elf) >> 20} MiB")
    if output is not None:
        write_atomically(output, elf)
        click.echo(f"written to {output}")


@images.command(name="list")
@click.pass_obj
def list_images(obj: tuple[ImageStore, OwnKernel | None]) -> None:
    """Show every image, what it takes on disk and who needs it."""
    store, own_kernel = obj
    current = current_hashes(store, own_kernel)
    table = Table("kind", "hash", "MiB", "made", "needed by", box=None, pad_edge=False)
    for image in store.images():
        holders = (["this version"] if image.hash in current else []) + sorted(
            store.pins(image.hash)
        )
        made = image.manifest.made_at[:19].replace("T", " ")
        table.add_row(image.manifest.kind, image.hash, _mib(image), made, ", ".join(holders))
    # A wide table is cut by nobody when it goes to a file.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@images.command()
@click.pass_obj
def prune(obj: tuple[ImageStore, OwnKernel | None]) -> None:
    """Remove the images that nothing was made with and that this version does not use."""
    store, own_kernel = obj
    current = current_hashes(store, own_kernel)
    removed = store.prune(current)
    for image in removed:
        click.echo(f"removed {image.manifest.kind} {image.hash}")
    click.echo(f"{len(removed)} images removed")


def _mib(image: Image) -> str:
    return f"{image.size / _MIB:.1f}"
