"""Which exchanges each sandbox has, so that they can be counted, and ended with it."""

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


Group = set[Ends]


class Registry(dict[str, Group]):
    """Live exchanges by sandbox, which add and discard themselves. A connection between two
    requests belongs to none."""

    def __missing__(self, sandbox_id: str) -> Group:
        """A sandbox that had none so far."""
        group = self[sandbox_id] = set()
        return group

    def count(self, sandbox_id: str) -> int:
        """How many exchanges the sandbox has."""
        return len(self.get(sandbox_id, ()))

    def sweep(self) -> None:
        """Forget the sandboxes that have none."""
        for sandbox_id in [key for key, group in self.items() if not group]:
            del self[sandbox_id]

    def end(self, sandbox_id: str, execution_id: str, reply: Reply) -> int:
        """End the exchanges of one execution of a sandbox; return how many there were."""
        group = self.get(sandbox_id, ())
        ended = [exchange for exchange in group if exchange.execution_id == execution_id]
        for exchange in ended:
            exchange.sandbox_ended(reply)
        return len(ended)
