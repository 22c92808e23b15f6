"""The runtime image: the interpreter's tree with envd, read-only at `/.emberbox` of the guest."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import emberbox
from emberbox.orchestrator.images import ext4, guest
from emberbox.orchestrator.images.interpreter import python_command, unpack_tree
from emberbox.orchestrator.images.manifest import (
    Manifest,
    digest_of,
    digest_of_tree,
    hash_of,
    key_of,
)
from emberbox.orchestrator.images.tools import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.orchestrator.images.store import Image, ImageStore

RECIPE = "1"
RUNTIME = "runtime.ext4"

PROGRAMS = {"init": "supervisor.sh", "envd": "envd.sh", "envd.py": "envd.py"}
"""Files of `bin/` and the scripts that they are."""

_PACKAGE = Path(emberbox.__file__).parent
_SOURCES = {"envd": _PACKAGE / "envd", "_gen/envd": _PACKAGE / "_gen" / "envd"}


def inputs_of(interpreter: Image, sources: Mapping[str, Path] = _SOURCES) -> dict[str, str]:
    """What the runtime image is made from: it needs nothing but the store and this package."""
    return {
        "recipe": RECIPE,
        "interpreter": interpreter.hash,
        "envd": digest_of_tree(sources, (".py",)),
        "programs": digest_of(*(guest.read(name).decode() for name in PROGRAMS.values())),
    }


def build(store: ImageStore, interpreter: Image) -> Image:
    """Make the image of an interpreter and the envd of this installation."""
    started = time.monotonic()
    with store.draft() as draft, store.draft() as work:
        tree = work / "tree"
        unpack_tree(interpreter, tree)
        # Named by what was copied: in a checkout the sources may change at any moment.
        inputs = inputs_of(interpreter, _take_envd(tree))
        key = key_of("runtime", inputs)
        digest = hash_of(key, ())
        _compile(tree / "emberbox", tree)
        _take_programs(tree)
        tree.chmod(0o755)
        ext4.make_image(tree, draft / RUNTIME, label="emberbox", identity=digest)
        facts = {"python": interpreter.manifest.facts["python"]}
        return store.add(draft, Manifest("runtime", key, digest, inputs, facts=facts), started)


def _take_envd(tree: Path) -> dict[str, Path]:
    package = tree / "emberbox"
    for name, source in _SOURCES.items():
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.pyi", "py.typed")
            shutil.copytree(source, package / name, ignore=ignore)
    # The package's own __init__ offers the client SDK, which is not here.
    for directory in (package, package / "_gen"):
        directory.mkdir(exist_ok=True)
        (directory / "__init__.py").write_text("")
    return {name: package / name for name in _SOURCES}


def _compile(package: Path, tree: Path) -> None:
    run(
        [*python_command(tree), "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
         "-s", str(tree), "-p", "/.emberbox", str(package)],
        doing="compiling envd",
        remedy="correct the module that does not compile",
    )  # fmt: skip


def _take_programs(tree: Path) -> None:
    for name, script in PROGRAMS.items():
        path = tree / "bin" / name
        path.write_bytes(guest.read(script))
        path.chmod(0o755)
