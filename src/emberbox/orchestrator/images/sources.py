"""The host's apt sources, read through apt itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from emberbox.orchestrator.images.errors import ImageError
from emberbox.orchestrator.images.tools import run

_FORMAT = "$(TARGET_OF)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)"


@dataclass(frozen=True, slots=True)
class Source:
    """One component of one suite at one address."""

    uri: str
    suite: str
    component: str
    signed_by: str | None
    """Path of a keyring, or a whole key as a deb822 value; None for apt's own trusted keys."""

    def to_deb822(self) -> str:
        """A stanza of a `.sources` file."""
        signature = f"Signed-By: {self.signed_by}\n" if self.signed_by else ""
        return (
            f"Types: deb\nURIs: {self.uri}\nSuites: {self.suite}\n"
            f"Components: {self.component}\n{signature}"
        )


def read_sources(codename: str) -> tuple[Source, ...]:
    """The suites of a release (`bookworm`, `bookworm-updates`, …) that the host is set up for.

    Other suites are left out: a third party's packages must not get into the images by chance.
    Raises ImageError when there is none.
    """
    output = run(
        ["apt-get", "indextargets", "--no-release-info", "--format", _FORMAT,
         "Created-By: Packages"],
        doing="reading the sources of apt",
        remedy="repair the sources of apt (apt-get indextargets must work)",
    )  # fmt: skip
    found = dict.fromkeys(
        source
        for line in output.splitlines()
        if (source := _parse(line)) is not None and _of_release(source.suite, codename)
    )
    if not found:
        raise ImageError(
            f"apt has no source of {codename}",
            f"add {codename}'s main archive to /etc/apt/sources.list.d",
        )
    return tuple(found)


def _parse(line: str) -> Source | None:
    target, uri, suite, component, entry = line.split("|", 4)
    if target != "deb":
        return None
    return Source(uri, suite, component, _signed_by(entry))


def _of_release(suite: str, codename: str) -> bool:
    return suite == codename or suite in {f"{codename}-updates", f"{codename}-security"}


def _signed_by(entry: str) -> str | None:
    """The `Signed-By` of a sources entry (`path:number`), which apt does not print itself."""
    path, _, number = entry.rpartition(":")
    if not path or not number.isdigit():
        return None
    text = Path(path).read_text()
    if path.endswith(".sources"):
        return _stanza_value(text, int(number))
    line = [*text.splitlines(), ""][int(number) - 1]
    match = re.search(r"\bsigned-by=([^\s\]]+)", line, re.IGNORECASE)
    return match[1] if match else None


def _stanza_value(text: str, number: int) -> str | None:
    without_comments = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    stanzas = [each for each in re.split(r"\n\s*\n", without_comments) if each.strip()]
    if not 0 < number <= len(stanzas):
        return None
    match = re.search(
        r"^Signed-By:[ \t]*(.*(?:\n[ \t].*)*)", stanzas[number - 1], re.MULTILINE | re.IGNORECASE
    )
    return match[1].rstrip() if match else None
