"""The catalog in Redis: where sandboxes run. API servers write it, client proxies read it."""

from __future__ import annotations

from typing import NamedTuple

CHANNEL = "emberbox:catalog"
"""On it the ids of sandboxes whose entries have changed."""

_PREFIX = "emberbox:catalog:"
_SEPARATOR = " "


class CatalogEntry(NamedTuple):
    """Where one run of a sandbox is. `data_address` is host:port of its host's data proxy."""

    execution_id: str
    data_address: str
    node_id: str

    def encode(self) -> str:
        """As it is stored: the execution id comes first, so that a script can compare it."""
        return _SEPARATOR.join(self)

    @classmethod
    def decode(cls, text: str) -> CatalogEntry:
        """Raises ValueError."""
        execution_id, data_address, node_id = text.split(_SEPARATOR, 2)
        return cls(execution_id, data_address, node_id)


def key_of(sandbox_id: str) -> str:
    """The key that holds its entry."""
    return f"{_PREFIX}{sandbox_id}"
