"""`python -m emberbox.envd`: the daemon of the guest."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.envd.cgroups import Cgroups, protect_envd
from emberbox.envd.server import Envd, Settings

if TYPE_CHECKING:
    from types import FrameType

_DEFAULTS = Settings()


def _parse(arguments: list[str]) -> tuple[Settings, Path]:
    parser = argparse.ArgumentParser(prog="envd", description=__doc__)
    parser.add_argument("--port", type=int, default=_DEFAULTS.port)
    parser.add_argument("--address", default=_DEFAULTS.address, help="address to listen on")
    parser.add_argument(
        "--init-peer", action="append", help="address that may call /init (repeatable)"
    )
    parser.add_argument(
        "--guest-address", default=_DEFAULTS.guest_address, help="outer address for bridged ports"
    )
    parser.add_argument(
        "--cgroup-root", type=Path, default=Path("/sys/fs/cgroup"), help="where cgroup2 is mounted"
    )
    given = parser.parse_args(arguments)
    peers = tuple(given.init_peer or _DEFAULTS.init_peers)
    return Settings(given.port, given.address, peers, given.guest_address), given.cgroup_root


def main(arguments: list[str]) -> None:
    """Serves until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="envd: %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    settings, cgroup_root = _parse(arguments)
    protect_envd()
    envd = Envd(settings, cgroups=Cgroups.open(cgroup_root))

    def stop(number: int, frame: FrameType | None) -> None:
        envd.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # What is here now stays. Left out of collections, its memory pages are not written to, and
    # machines that are cloned from one snapshot go on sharing them.
    gc.collect()
    gc.freeze()
    envd.run().join()
    if not envd.served:
        sys.exit(f"envd: cannot listen on {settings.address} port {settings.port}")


if __name__ == "__main__":
    main(sys.argv[1:])
