"""Calls to a guest that cannot be reached any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from emberbox.orchestrator import envd_calls, envd_client
from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.network.addresses import NodeNetwork

NOWHERE = NodeNetwork.of_node("unit-test").slot(1)
IDENTITY = Identity("iabc", "t", "e-1", "token", {})


@pytest.mark.parametrize("initialize", [envd_client.initialize, envd_calls.initialize])
async def test_a_guest_whose_namespace_is_gone_is_not_waited_for(initialize: Any) -> None:
    with pytest.raises(GuestUnreachable, match="its network is gone: open /run/netns/"):
        await asyncio.wait_for(initialize(NOWHERE, IDENTITY, 3600), 10)
