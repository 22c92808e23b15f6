"""Nothing above the machine interface asks which driver it has."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import emberbox.orchestrator
from emberbox.orchestrator.machines.driver import Driver, Machine
from emberbox.orchestrator.machines.firecracker.driver import FirecrackerDriver
from emberbox.orchestrator.machines.firecracker.machine import FirecrackerMachine
from emberbox.orchestrator.machines.qemu.driver import QemuDriver
from emberbox.orchestrator.machines.qemu.machine import QemuMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

ORCHESTRATOR = Path(emberbox.orchestrator.__file__).parent
BELOW = ORCHESTRATOR / "machines"
CHOOSES = {ORCHESTRATOR / "settings.py", ORCHESTRATOR / "main.py"}
"""Where operators' settings are handed to the driver that they are for."""

NAMES = re.compile(r"qemu|firecracker|\btcg\b|\bkvm\b", re.IGNORECASE)
DRIVERS = {"QemuDriver", "QemuMachine", "FirecrackerDriver", "FirecrackerMachine"}

ABOVE = [p for p in sorted(ORCHESTRATOR.rglob("*.py")) if BELOW not in p.parents]


def asks(tree: ast.AST) -> Iterator[str]:
    """Places at which code looks as if it made a difference between drivers."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if NAMES.search(module):
                yield f"{node.lineno}: import of {module}"
            case ast.Constant(value=str(text)) if NAMES.search(text):
                if id(node) not in documentation:
                    yield f"{node.lineno}: names {text!r}"
            case ast.Name(id=name) if name in DRIVERS:
                yield f"{node.lineno}: {name}"
            case ast.Compare():
                names = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
                # Whether a snapshot was made by the very same is asked; by which is not.
                if "report" in names or "accelerator" in names:
                    yield f"{node.lineno}: compares {ast.unparse(node)}"


@pytest.mark.parametrize("path", ABOVE, ids=lambda path: str(path.relative_to(ORCHESTRATOR)))
def test_nothing_above_asks_which_driver_it_has(path: Path) -> None:
    found = list(asks(ast.parse(path.read_text())))
    if path in CHOOSES:
        found = [line for line in found if "compares" in line or "Machine" in line]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "from emberbox.orchestrator.machines.qemu.machine import RAM",
        "if driver.report.name == other: pass",
        "if host.driver.report.accelerator != 'x': pass",
        "x = 'Firecracker'",
        "isinstance(machine, QemuMachine)",
    ],
)
def test_asking_would_be_noticed(line: str) -> None:
    assert list(asks(ast.parse(line)))


@pytest.mark.parametrize(
    ("interface", "made"),
    [
        (Driver, QemuDriver),
        (Driver, FirecrackerDriver),
        (Machine, QemuMachine),
        (Machine, FirecrackerMachine),
    ],
)
def test_all_drivers_have_the_same_methods(interface: type, made: type) -> None:
    for name, member in vars(interface).items():
        if not name.startswith("_") and inspect.isfunction(member):
            assert list(inspect.signature(getattr(made, name)).parameters) == list(
                inspect.signature(member).parameters
            ), name
