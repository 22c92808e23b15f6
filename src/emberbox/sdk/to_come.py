"""Names that `e2b` exports and Emberbox does not have yet: using one says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from .errors import NotSupportedYetException
from .not_yet import refuser

if TYPE_CHECKING:
    from collections.abc import Callable


class _ClassToCome(type):
    """Its classes are there to be imported and named; to call them or their methods is refused."""

    def __call__(cls, *_args: object, **_options: object) -> NoReturn:
        raise NotSupportedYetException(cls.__name__)

    def __getattr__(cls, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(name)
        return refuser(f"{cls.__name__}.{name}")


def _to_come(name: str) -> _ClassToCome:
    return _ClassToCome(name, (), {})


# Templates of one's own
Template = _to_come("Template")
AsyncTemplate = _to_come("AsyncTemplate")
TemplateBase = _to_come("TemplateBase")
TemplateClass = _to_come("TemplateClass")
TemplateBuildStatus = _to_come("TemplateBuildStatus")
TemplateBuildStatusResponse = _to_come("TemplateBuildStatusResponse")
TemplateTag = _to_come("TemplateTag")
TemplateTagInfo = _to_come("TemplateTagInfo")
BuildInfo = _to_come("BuildInfo")
BuildStatusReason = _to_come("BuildStatusReason")
CopyItem = _to_come("CopyItem")
LogEntry = _to_come("LogEntry")
LogEntryStart = _to_come("LogEntryStart")
LogEntryEnd = _to_come("LogEntryEnd")
LogEntryLevel = _to_come("LogEntryLevel")
ReadyCmd = _to_come("ReadyCmd")
default_build_logger = _to_come("default_build_logger")
wait_for_file = _to_come("wait_for_file")
wait_for_port = _to_come("wait_for_port")
wait_for_process = _to_come("wait_for_process")
wait_for_timeout = _to_come("wait_for_timeout")
wait_for_url = _to_come("wait_for_url")

# Volumes
Volume = _to_come("Volume")
AsyncVolume = _to_come("AsyncVolume")
VolumeAndToken = _to_come("VolumeAndToken")
VolumeApiParams = _to_come("VolumeApiParams")
VolumeConnectionConfig = _to_come("VolumeConnectionConfig")
VolumeEntryStat = _to_come("VolumeEntryStat")
VolumeFileType = _to_come("VolumeFileType")
VolumeInfo = _to_come("VolumeInfo")

# Secrets
Secret = _to_come("Secret")
AsyncSecret = _to_come("AsyncSecret")
SecretInfo = _to_come("SecretInfo")
SecretPaginator = _to_come("SecretPaginator")
AsyncSecretPaginator = _to_come("AsyncSecretPaginator")
