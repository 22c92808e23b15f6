"""Checks of request values, with the protocol's messages (2.3, 2.4)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from emberbox.api_server.checking_networks import check_network
from emberbox.api_server.errors import BadRequestError, NotAvailableYetError
from emberbox.api_server.models import NewSandbox, NewSandboxV2
from emberbox.api_server.networks import with_network
from emberbox.api_server.wanted import WantedSandbox

if TYPE_CHECKING:
    from emberbox.api_server.store.rows import JsonValue, Limits

_LONGEST_HOURS = 87_600
"""Ten years, so that a deadline is always a moment that databases and clients can write."""

_IDEMPOTENCY_KEY = re.compile(r"[a-z0-9-]{1,255}\Z")
_LONGEST_MAP = 256 * 1024


def checked_timeout(seconds: int, limits: Limits) -> int:
    """A life that may be asked for. Raises BadRequestError."""
    if seconds <= 0:
        raise BadRequestError("Timeout must be greater than 0")
    return capped_timeout(seconds, limits)


def chosen_timeout(asked: int | None, default: int, limits: Limits) -> int:
    """The same, when none need be given. Raises BadRequestError."""
    return checked_timeout(default if asked is None else asked, limits)


def capped_timeout(seconds: int, limits: Limits) -> int:
    """Refuse what is above the team's maximum; below zero is zero. Raises BadRequestError."""
    hours = min(limits.max_length_hours or _LONGEST_HOURS, _LONGEST_HOURS)
    if seconds > hours * 3600:
        raise BadRequestError(f"Timeout cannot be greater than {hours} hours")
    return max(seconds, 0)


def wanted_sandbox(
    body: NewSandboxV2, limits: Limits, default_timeout: int, idempotency_key: str | None
) -> WantedSandbox:
    """What a create asks for. Raises BadRequestError and NotAvailableYetError."""
    _check_lifecycle(body)
    _refuse("volumeMounts", body.volume_mounts)
    _refuse("iam", body.iam)
    _check_maps(body)
    if idempotency_key is not None and not _IDEMPOTENCY_KEY.match(idempotency_key):
        raise BadRequestError("Idempotency-Key must be 1 to 255 characters of [a-z0-9-]")
    options: dict[str, JsonValue] = {"mcp": body.mcp} if body.mcp else {}
    if body.network is not None:
        check_network(body.network)
        options = with_network(options, body.network)
    return WantedSandbox(
        template=body.template_id,
        timeout=chosen_timeout(body.timeout, default_timeout, limits),
        secure=bool(body.secure) if isinstance(body, NewSandbox) else True,
        metadata=body.metadata or {},
        env_vars=body.env_vars or {},
        allow_internet_access=body.allow_internet_access,
        public_traffic=body.network is None or body.network.allow_public_traffic is not False,
        options=options,
        auto_pause=bool(body.auto_pause),
        auto_pause_memory=body.auto_pause_memory is not False,
        auto_resume=_auto_resumes(body),
        idempotency_key=idempotency_key,
    )


def _check_lifecycle(body: NewSandboxV2) -> None:
    if body.auto_pause_memory is False and not body.auto_pause:
        raise BadRequestError("autoPauseMemory=false only applies when autoPause is true.")
    if body.auto_pause_memory is False and _auto_resumes(body):
        raise BadRequestError(
            "autoPauseMemory=false cannot be combined with autoResume: traffic does not boot a "
            "sandbox. Leave one of them out."
        )


def _auto_resumes(body: NewSandboxV2) -> bool:
    return body.auto_resume is not None and body.auto_resume.enabled


def _refuse(field: str, value: object) -> None:
    if value:
        raise NotAvailableYetError(field)


def _check_maps(body: NewSandboxV2) -> None:
    for name, values in (("metadata", body.metadata), ("envVars", body.env_vars)):
        if sum(len(key) + len(value) for key, value in (values or {}).items()) > _LONGEST_MAP:
            raise BadRequestError(f"{name} is longer than {_LONGEST_MAP} characters")
        for key, value in (values or {}).items():
            if not (_is_text(key) and _is_text(value)):
                raise BadRequestError(f"{name}: {key!r} holds a NUL character or half a character")


def _is_text(value: str) -> bool:
    """Whether databases, environments and protobuf can hold it: JSON has more strings."""
    return "\0" not in value and not any("\ud800" <= one <= "\udfff" for one in value)
