"""Where a request and its answer are on their way.

```
ROUTING ──reply──────────────► DRAINING ──request read──► over
   │ target     ▲                  ▲
   │            └─────sandbox ended│before it was given the request, or it may be repeated
DIALLING ──no connection───────────┤
   │ connected                     │ upstream fails before its head
   │                               │ a proxy of ours does not have the sandbox: ROUTING, once
FORWARDING ──upstream fails in its answer──► client reset
       │ answer complete, request complete ──────────────► over
       │ answer complete, upstream gone or closing ───────► client lingers
       │ 101 ────────────────────────────────────────────► a tunnel takes over
```
"""

from __future__ import annotations

import enum


class ExchangeState(enum.Enum):
    """See the diagram above."""

    ROUTING = enum.auto()
    DIALLING = enum.auto()
    FORWARDING = enum.auto()
    DRAINING = enum.auto()
    OVER = enum.auto()
