"""What is recorded of a paused sandbox, for tests that need some record of one."""

from __future__ import annotations

from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.snapshots.manifest import Snapshot

SNAPSHOT = Snapshot(
    sandbox_id="iabc",
    execution_id="e-1",
    template_id="t",
    build_id="b-1",
    vcpu=1,
    ram_mb=64,
    disk_mb=10,
    driver="stand-in",
    accelerator="none",
    made_with="vmm",
    images={"root": "root-1"},
    envd_version="0.6.13",
    egress=OPEN,
    paused_at=1.0,
    memory=True,
    based=True,
    memory_bytes=5,
    disk_bytes=0,
)
