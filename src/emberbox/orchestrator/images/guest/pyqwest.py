"""Stand-in for the HTTP client that connectrpc's client modules import.

envd is a server only: the generated code imports `connectrpc.client`, which needs the names of
`pyqwest` (16 MB of compiled code) and calls none of them. Every name is a class that says so
when it is used.
"""

from __future__ import annotations


class _NotInTheGuest:
    def __init__(self, *_args: object, **_keywords: object) -> None:
        raise RuntimeError("envd serves Connect and calls nobody: pyqwest is not in the guest")


def __getattr__(name: str) -> type[_NotInTheGuest]:
    if name.startswith("__"):
        raise AttributeError(name)
    return _NotInTheGuest
