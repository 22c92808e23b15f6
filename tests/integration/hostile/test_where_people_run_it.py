"""It works beside Docker's and ufw's FORWARD=drop, with a resolver on 127.0.0.53."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.hostile.servers import PackageIndex

if TYPE_CHECKING:
    from tests.integration.hostile.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

PIP_CONF = """
[global]
index-url = http://index.example:8080/simple
trusted-host = index.example
no-cache-dir = true
disable-pip-version-check = true
"""


def test_pip_downloads_a_package(host: Machine) -> None:
    box = host.create()
    box.write("/etc/pip.conf", PIP_CONF)
    box.run("python3 -m pip download --no-deps -q --dest /tmp/d demo", user="user")
    digest = box.run(f"sha256sum /tmp/d/{PackageIndex.FILE}").stdout.split()[0]
    assert digest == host.index.sha256
