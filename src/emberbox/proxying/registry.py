"""Which exchanges each sandbox has, so that they can be ended with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from emberbox.proxying.replies import Reply


class Ends(Protocol):
    """Something that lives no longer than its sandbox."""

    @property
    def execution_id(self) -> str:
        """The run of the sandbox that it belongs to."""
        ...

    def sandbox_ended(self, reply: Reply) -> None:
        """Reset the client; `reply` is for one whose answer has not begun."""
        ...


class Registry:
    """Live exchanges by sandbox. A connection between two requests belongs to none."""

    def __init__(self) -> None:
        self._live: dict[str, set[Ends]] = {}

    def add(self, sandbox_id: str, exchange: Ends) -> None:
        """Remember an exchange until `remove`."""
        live = self._live.get(sandbox_id)
        if live is None:
            self._live[sandbox_id] = {exchange}
        else:
            live.add(exchange)

    def remove(self, sandbox_id: str, exchange: Ends) -> None:
        """Forget an exchange; it may have been forgotten before."""
        live = self._live.get(sandbox_id)
        if live is None:
            return
        live.discard(exchange)
        if not live:
            del self._live[sandbox_id]

    def count(self, sandbox_id: str) -> int:
        """How many exchanges the sandbox has."""
        return len(self._live.get(sandbox_id, ()))

    def end(self, sandbox_id: str, execution_id: str, reply: Reply) -> int:
        """End the exchanges of one execution of a sandbox; return how many there were."""
        live = self._live.get(sandbox_id, ())
        ended = [exchange for exchange in live if exchange.execution_id == execution_id]
        for exchange in ended:
            exchange.sandbox_ended(reply)
        return len(ended)
