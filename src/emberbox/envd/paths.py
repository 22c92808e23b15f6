"""Paths as clients write them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emberbox.envd.errors import InvalidArgumentError

if TYPE_CHECKING:
    from emberbox.envd.users import User


def resolve(path: str, user: User, default: str = "") -> str:
    """An absolute path: `~` is the user's home, relative paths start there.

    An empty path means `default`, itself resolved, or the home. Raises InvalidArgumentError.
    """
    if "\0" in path:
        raise InvalidArgumentError("path contains a null byte")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:  # half of a pair, which JSON can name
        raise InvalidArgumentError("path has a character that no file name can have") from error
    path = path or default or user.home
    if path.startswith("~"):
        head, _, rest = path.partition("/")
        if head != "~":
            raise InvalidArgumentError(f"cannot expand '{head}' in path '{path}': use '~' alone")
        path = os.path.join(user.home, rest)  # noqa: PTH118 - text in, text out
    # Not realpath: clients expect the path that they asked for.
    full = os.path.normpath(os.path.join(user.home, path))  # noqa: PTH118
    return full[1:] if full.startswith("//") else full  # normpath keeps two, as POSIX allows
