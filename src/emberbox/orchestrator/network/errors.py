"""Errors of the network package.

NetworkError (an OrchestratorError)
├── KernelRefusedError      a system call or netlink request failed
├── RulesRefusedError       nft did not accept our rules
├── RangeTakenError         the node's address range is in use by someone else
├── NoFreeSlotError         every address of the range is taken
├── SlotMissingError        a slot to adopt is not there any more
└── DnsForwarderError       the forwarder does not come up
"""

from __future__ import annotations

import os
from errno import ENOENT

from emberbox.orchestrator.errors import OrchestratorError


class NetworkError(OrchestratorError):
    """Base of the errors of this package."""


class KernelRefusedError(NetworkError):
    """The kernel refused a request. `errno` is its reason."""

    def __init__(self, request: str, errno: int) -> None:
        super().__init__(f"{request}: {os.strerror(errno)}")
        self.request = request
        self.errno = errno

    @property
    def nothing_is_there(self) -> bool:
        """Whether what the request is about does not exist, or not any more."""
        return self.errno == ENOENT


class RulesRefusedError(NetworkError):
    """nft did not load a ruleset. `output` is what it said."""

    def __init__(self, output: str) -> None:
        super().__init__(f"nft did not accept the rules: {output.strip()}")
        self.output = output


class RangeTakenError(NetworkError):
    """An address of the node's range is already on another link of this host."""

    def __init__(self, address_range: str, address: str, link: str) -> None:
        super().__init__(
            f"the network range {address_range} holds {address}, which {link} has already; "
            "set EMBERBOX_NETWORK_RANGE to a free range"
        )
        self.address_range = address_range
        self.address = address
        self.link = link


class NoFreeSlotError(NetworkError):
    """All slots of the range are in use. `capacity` is how many there are."""

    def __init__(self, capacity: int) -> None:
        super().__init__(
            f"all {capacity} network slots are in use; set EMBERBOX_NETWORK_RANGE to a larger range"
        )
        self.capacity = capacity


class SlotMissingError(NetworkError):
    """A slot that should be there is gone, or is not whole."""

    def __init__(self, index: int, missing: str) -> None:
        super().__init__(f"network slot {index} cannot be adopted: {missing} is missing")
        self.index = index
        self.missing = missing


class DnsForwarderError(NetworkError):
    """The DNS forwarder did not begin to answer. `log` is where it says why."""

    def __init__(self, listen: str, log: str) -> None:
        super().__init__(f"the DNS forwarder does not answer on {listen}; see {log}")
        self.listen = listen
        self.log = log
