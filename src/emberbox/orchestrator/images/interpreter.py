"""What envd runs on, without envd: Python, its libraries, the wheels and a static busybox.

Kept as an image of its own so that a change of envd needs neither network nor apt. Its tree is
what `/.emberbox` of the guest holds:

```
lib/ld.so, lib/*.so*       the loader and every library that the interpreter and the wheels need
python/bin/python3         the interpreter
python/lib/python3.N       the standard library, trimmed, with .pyc
wheels/                    envd's packages, with .pyc
bin/busybox
copyright/                 the licences of the Debian packages
```
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import time
from typing import TYPE_CHECKING

from emberbox.orchestrator.images import guest
from emberbox.orchestrator.images.errors import ImageError
from emberbox.orchestrator.images.lock import find_lock, without
from emberbox.orchestrator.images.manifest import Manifest, digest_of, hash_of, key_of
from emberbox.orchestrator.images.tools import run

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.images.apt import Apt
    from emberbox.orchestrator.images.manifest import Package
    from emberbox.orchestrator.images.store import Image, ImageStore

RECIPE = "1"
TREE = "tree.tar"
BUSYBOX_MEMBER = "bin/busybox"

PACKAGES = ("python3-minimal", "libpython3-stdlib", "busybox-static")

UNUSED_WHEELS = frozenset({"pyqwest"})
"""Locked packages that the guest does without; `guest/pyqwest.py` stands in for this one."""

UNUSED_LIBRARY = (
    "ensurepip", "idlelib", "lib2to3", "pydoc_data", "sqlite3", "test", "tkinter",
    "turtledemo", "unittest", "venv", "wsgiref", "xmlrpc", "curses", "dbm", "distutils",
    "config-*",
    "lib-dynload/_crypt.*", "lib-dynload/_curses*", "lib-dynload/_dbm*", "lib-dynload/_sqlite3*",
    "lib-dynload/_test*", "lib-dynload/_tkinter*", "lib-dynload/_xx*", "lib-dynload/audioop*",
    "lib-dynload/nis*", "lib-dynload/ossaudiodev*", "lib-dynload/readline*", "lib-dynload/xx*",
    "lib-dynload/_ctypes_test*",
)  # fmt: skip
"""Parts of the standard library that no server needs."""

_PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in (17, 28, 34)))


def inputs_of() -> dict[str, str]:
    """What is known before anything is fetched."""
    return {
        "recipe": RECIPE,
        "packages": " ".join(PACKAGES),
        "trimmed": digest_of(*UNUSED_LIBRARY),
        "lock": digest_of(find_lock().read_text(), *UNUSED_WHEELS),
        "stand-in": digest_of(guest.read("pyqwest.py").decode()),
    }


def build(store: ImageStore, apt: Apt) -> Image:
    """Fetch the packages and wheels and put the tree together."""
    started = time.monotonic()
    inputs = inputs_of()
    key = key_of("interpreter", inputs)
    packages = apt.resolve(PACKAGES)
    digest = hash_of(key, packages)
    present = store.get("interpreter", digest)
    if present is not None:
        return present
    version = _python_version(packages)
    with store.draft() as draft, store.draft() as work:
        debs, tree = work / "debs", work / "tree"
        apt.unpack(packages, debs)
        tree.mkdir()
        _take_python(debs, tree, version)
        _take_wheels(work, tree, version)
        _take_libraries(debs, tree)
        _take_busybox(debs, tree)
        _take_licences(debs, tree)
        _compile(tree)
        pack_tree(tree, draft / TREE)
        facts = {"python": version}
        manifest = Manifest("interpreter", key, digest, inputs, packages, facts=facts)
        return store.add(draft, manifest, started)


def unpack_tree(interpreter: Image, into: Path) -> None:
    """Unpack the tree of an interpreter image."""
    with tarfile.open(interpreter.file(TREE)) as archive:
        archive.extractall(into, filter="fully_trusted")  # noqa: S202 - we packed it


def pack_tree(tree: Path, archive_path: Path) -> None:
    """Pack a tree, sorted and owned by root."""
    with tarfile.open(archive_path, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            archive.add(path, str(path.relative_to(tree)), recursive=False, filter=_as_root)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _python_version(packages: tuple[Package, ...]) -> str:
    for package in packages:
        match = re.fullmatch(r"python(3\.\d+)-minimal", package.name)
        if match:
            return match[1]
    raise ImageError("python3-minimal brings no interpreter", "check the sources of apt")


def _take_python(debs: Path, tree: Path, version: str) -> None:
    binary = tree / "python/bin/python3"
    binary.parent.mkdir(parents=True)
    shutil.copy(debs / f"usr/bin/python{version}", binary)
    library = tree / f"python/lib/python{version}"
    shutil.copytree(debs / f"usr/lib/python{version}", library, symlinks=True)
    for pattern in UNUSED_LIBRARY:
        for path in library.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Debian's are links into /etc, which belongs to the root image.
    for path in library.rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink()


def _take_wheels(work: Path, tree: Path, version: str) -> None:
    lock = work / "envd.txt"
    lock.write_text(without(find_lock().read_text(), UNUSED_WHEELS))
    wheels = tree / "wheels"
    platforms = [option for each in _PLATFORMS for option in ("--platform", each)]
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps",
         "--only-binary", ":all:", "--no-compile", "--target", str(wheels),
         "--implementation", "cp", "--python-version", version, *platforms, "-r", str(lock)],
        doing="fetching envd's packages with pip",
        remedy="check the network and the configuration of pip, then try again",
    )  # fmt: skip
    shutil.rmtree(wheels / "bin", ignore_errors=True)
    (wheels / "pyqwest.py").write_bytes(guest.read("pyqwest.py"))


def _take_libraries(debs: Path, tree: Path) -> None:
    """Copy the loader and all that the interpreter, its modules and the wheels are linked with.

    The loader just unpacked is asked, so the answer is what it will do in the guest.
    """
    lib = tree / "lib"
    lib.mkdir()
    directories = [debs / "lib/x86_64-linux-gnu", debs / "usr/lib/x86_64-linux-gnu"]
    loader = (debs / "lib64/ld-linux-x86-64.so.2").resolve()
    if not loader.is_file():
        loader = directories[0] / "ld-linux-x86-64.so.2"
    shutil.copy(loader, lib / "ld.so")
    search = ":".join(map(str, directories))
    binaries = [tree / "python/bin/python3", *sorted(tree.rglob("*.so"))]
    for binary in binaries:
        output = run(
            [str(lib / "ld.so"), "--library-path", search, "--list", str(binary)],
            doing=f"finding the libraries of {binary.name}",
            remedy="report this: the list of packages is not complete",
        )
        for name, path in re.findall(r"^\s*(\S+) => (\S+) \(", output, re.MULTILINE):
            if not (lib / name).exists():
                shutil.copy(path, lib / name)
    # Loaded by name at run time, so no list shows them.
    for name in ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1"):
        found = next((each / name for each in directories if (each / name).exists()), None)
        if found is not None and not (lib / name).exists():
            shutil.copy(found, lib / name)


def _take_busybox(debs: Path, tree: Path) -> None:
    found = next(path for path in (debs / "bin/busybox", debs / "usr/bin/busybox") if path.exists())
    target = tree / BUSYBOX_MEMBER
    target.parent.mkdir()
    shutil.copy(found, target)


def _take_licences(debs: Path, tree: Path) -> None:
    target = tree / "copyright"
    target.mkdir()
    for path in sorted((debs / "usr/share/doc").glob("*/copyright")):
        if path.is_file():
            shutil.copyfile(path, target / path.parent.name)


def _compile(tree: Path) -> None:
    """Compile with the tree's own interpreter; unchecked, for the image never changes."""
    run(
        [*python_command(tree), "-m", "compileall", "-q", "-j", "0",
         "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/.emberbox",
         str(tree / "python/lib"), str(tree / "wheels")],
        doing="compiling the standard library",
        remedy="report this: a module of the interpreter does not compile",
    )  # fmt: skip


def python_command(tree: Path) -> list[str]:
    """Command that runs the interpreter of an unpacked tree on this host."""
    python = str(tree / "python/bin/python3")
    loader, lib = str(tree / "lib/ld.so"), str(tree / "lib")
    return [loader, "--library-path", lib, "--argv0", python, python, "-I", "-S", "-B"]
