"""The DNS forwarder behind every gateway: `python -m emberbox.orchestrator.network.dns`.

A process of its own in the host's namespace, so resolvers on loopback and on private addresses
work although guests cannot reach those. It outlives the orchestrator as the VMs do.
"""

from __future__ import annotations
