"""What makes it right to send a request once more."""

from __future__ import annotations

from emberbox.shared.protocol import HEADER_NOT_HERE

METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110, 9.2.2: a proxy may send these again when a kept connection died under them."""
NOT_HERE = HEADER_NOT_HERE.lower().encode("ascii")
"""In the head of an answer of a proxy of ours: no sandbox was given the request. Whatever its
method, it may be sent to another host. No guest can say so, as no head of a guest passes a proxy
of ours with such a field."""
