"""The part of a boot that needs no KVM, with a real Firecracker where there is one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.cli.servers import load_settings
from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.images import ImageStore, find_images
from emberbox.orchestrator.machines.driver import BootFiles, Hardware, Surroundings
from emberbox.orchestrator.machines.firecracker import installation
from emberbox.orchestrator.machines.firecracker.driver import FirecrackerDriver
from emberbox.orchestrator.machines.firecracker.installation import Installation, Options
from emberbox.orchestrator.machines.kvm import missing_hardware
from emberbox.orchestrator.settings import Settings
from emberbox.shared.home import Home, default_home
from tests.firecracker.world import processes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.network.addresses import Slot

UID = 1_949_999_999


@pytest.fixture(params=[True, False], ids=["jailed", "bare"])
def installed(request: pytest.FixtureRequest) -> Installation:
    """That of EMBERBOX_FIRECRACKER or PATH."""
    given = load_settings(Settings).firecracker_options
    found = installation.look(Options(given.firecracker, given.jailer, jail=request.param))
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def files() -> BootFiles:
    """The images of this machine."""
    images = find_images(ImageStore(Home(default_home()).images))
    if images is None:
        pytest.skip("the guest images are not built")
    return BootFiles(images.kernel, images.initrd, images.root, images.runtime)


@pytest.fixture
def place(free_slots: list[Slot]) -> Iterator[Surroundings]:
    """Nothing of a machine is left on the host afterwards."""
    with tempfile.TemporaryDirectory(prefix="fc-") as name:
        run = Path(name)
        (run / "scratch").write_bytes(bytes(1 << 20))
        yield Surroundings("emberbox-real-test", run, free_slots[0], UID, run / "scratch")
    assert not processes_of(UID)


async def test_every_configuration_is_taken_and_the_rest_is_told(
    installed: Installation, files: BootFiles, place: Surroundings, tmp_path: Path
) -> None:
    driver = FirecrackerDriver(installed, installation.report(installed, ""), tmp_path / "kernels")
    refused = ""
    try:
        machine = await driver.boot(Hardware(1, 256), files, place)
        await machine.stop()
    except MachineError as error:
        refused = error.explain()
    if missing_hardware():
        # All before the start was taken, and it is the start that is refused.
        assert refused == "" or "Firecracker refused PUT /actions" in refused
    else:
        assert refused == ""
