"""The host's data proxy (:5007): worker processes that forward to VMs and outlive the orchestrator.

The orchestrator side is `feed` (tells workers where sandboxes are) and `supervisor` (starts and
adopts workers); a worker is `worker` with `table`, `resolver` and `bridging`.
"""

from __future__ import annotations
