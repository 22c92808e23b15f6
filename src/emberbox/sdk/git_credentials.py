"""User names and passwords for git over HTTP. No I/O.

A password is handed to git by a credential helper that reads it from the environment of that one
command: it is in no command line, no configuration and no URL, and it is offered to no host but
that of the repository, whatever else git asks for (gitcredentials(7)).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from .errors import InvalidArgumentException
from .git_commands import git

if TYPE_CHECKING:
    from collections.abc import Mapping

_USERNAME = "EMBERBOX_GIT_USERNAME"
_PASSWORD = "EMBERBOX_GIT_PASSWORD"  # noqa: S105 (the name of a variable)
_EMBEDDED_URL = "EMBERBOX_GIT_EMBEDDED_URL"

_ANSWER = rf'printf "username=%s\npassword=%s\n" "${_USERNAME}" "${_PASSWORD}"'
_HELPER = f'!f() {{ if test "$1" = get; then {_ANSWER}; fi; }}; f'


@dataclass(frozen=True)
class Credentials:
    """A user name and a password or token. Raises InvalidArgumentException for a line break."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_line("username", self.username)
        _check_line("password", self.password)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the helper reads."""
        return {_USERNAME: self.username, _PASSWORD: self.password}


def given(username: str | None, password: str | None) -> Credentials | None:
    """The credentials that a call was given; a user name alone is none.

    Raises InvalidArgumentException for a password alone.
    """
    if password and not username:
        raise InvalidArgumentException("username must be given too when password is")
    return Credentials(username, password) if username and password else None


@dataclass(frozen=True)
class Access:
    """How git reaches the repository at a URL: with what options and variables."""

    url: str
    """Without credentials."""
    credentials: Credentials | None = None
    original_url: str | None = field(default=None, repr=False)
    """The URL of the remote, if it carries credentials that are not to be used."""

    @property
    def url_with_credentials(self) -> str:
        """The URL to keep the credentials in."""
        return _embed(self.url, self.credentials) if self.credentials else self.url

    @property
    def options(self) -> list[str]:
        """Options of git, before the subcommand: forget other helpers for this host, use ours."""
        if self.credentials is None:
            return []
        parts = urlsplit(self.url)
        setting = f"credential.{parts.scheme}://{parts.netloc}.helper"
        return ["-c", f"{setting}=", "-c", f"{setting}={_HELPER}", *self._replacing_option]

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the command."""
        embedded = {_EMBEDDED_URL: self.original_url} if self.original_url else {}
        return {**(self.credentials.environment if self.credentials else {}), **embedded}

    def redact(self, text: str) -> str:
        """The text without passwords, as they are and as they are written in URLs."""
        unused = _split(self.original_url)[1] if self.original_url else None
        passwords = [known.password for known in (self.credentials, unused) if known]
        if not passwords:
            return text
        forms = {form for each in passwords for form in (each, quote(each, safe=""), quote(each))}
        longest_first = sorted(forms, key=len, reverse=True)
        # Without regard to case: git writes the hexadecimal digits of an escape small.
        return re.sub("|".join(map(re.escape, longest_first)), "***", text, flags=re.IGNORECASE)

    @property
    def _replacing_option(self) -> list[str]:
        """Have git use the URL without the credentials that a remote's URL carries."""
        if not self.original_url:
            return []
        return [f"--config-env=url.{self.url}.insteadOf={_EMBEDDED_URL}"]


def access(url: str, credentials: Credentials | None) -> Access:
    """Access to a URL with credentials, else with those in the URL, else with none.

    Raises InvalidArgumentException when the URL cannot be read, and when there are credentials
    for one that is not HTTP.
    """
    plain, embedded = _split(url)
    chosen = credentials or embedded
    if chosen is None:
        return Access(url)
    parts = urlsplit(plain)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidArgumentException(
            "username and password can be used with http:// and https:// URLs only"
        )
    return Access(plain, chosen)


def access_to_remote(url: str, credentials: Credentials) -> Access:
    """Access to a remote that has this URL, with these credentials and not those in the URL.

    Raises InvalidArgumentException when the URL is not HTTP.
    """
    used = access(url, credentials)
    return replace(used, original_url=url if used.url != url else None)


def authenticate(credentials: Credentials, host: str, protocol: str) -> str:
    """The command that has git keep the credentials for a host, in its plain-text store.

    Raises InvalidArgumentException.
    """
    for what, value in (("host", host), ("protocol", protocol)):
        if not value:
            raise InvalidArgumentException(f"{what} must not be empty")
        _check_line(what, value)
    lines = shlex.join([r"protocol=%s\nhost=%s\nusername=%s\npassword=%s\n\n", protocol, host])
    store = git("config", "--global", "credential.helper", "store")
    approve = git("credential", "approve")
    return f'{store} && printf {lines} "${_USERNAME}" "${_PASSWORD}" | {approve}'


def environment(
    asked: Mapping[str, str] | None, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Variables of a git command: it asks nothing, and speaks English for `git_failures`."""
    return {
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        **(asked or {}),
        **(more or {}),
    }


def _check_line(what: str, value: str) -> None:
    """What is handed over on a line of its own cannot hold the end of one."""
    if {"\n", "\r", "\0"} & set(value):
        raise InvalidArgumentException(f"{what} must not hold a line break or NUL")


def _split(url: str) -> tuple[str, Credentials | None]:
    """An HTTP URL without its credentials, and these; any other URL as it is."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidArgumentException(f"url cannot be read: {error}") from None
    user_info, at, host = parts.netloc.rpartition("@")
    if parts.scheme not in {"http", "https"} or not at:
        return url, None
    username, _, password = user_info.partition(":")
    plain = parts._replace(netloc=host).geturl()
    if not (username and password):
        return plain, None
    return plain, Credentials(unquote(username), unquote(password))


def _embed(url: str, credentials: Credentials) -> str:
    parts = urlsplit(url)
    user_info = f"{quote(credentials.username, safe='')}:{quote(credentials.password, safe='')}"
    return parts._replace(netloc=f"{user_info}@{parts.netloc}").geturl()
