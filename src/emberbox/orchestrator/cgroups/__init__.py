"""Control groups: what each VM may take of its host, and who comes first when it is short.

    <parent>/emberbox-<node>/      weighs as much as the host has cores, against what is beside it
        vm-<slot>/                 one VM: CPU, memory, threads, I/O

The programs of ours are not in it: however busy the VMs are, they have the share of what is
outside. Only the standard library is imported here: the tests run it in a guest.
"""

from __future__ import annotations

from emberbox.orchestrator.cgroups.groups import Limits, VmGroup, VmGroups
from emberbox.orchestrator.cgroups.hierarchy import Hierarchy, find

__all__ = ["Hierarchy", "Limits", "VmGroup", "VmGroups", "find"]
