"""The walls of the house: which part may import which. An arrow only ever points down."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vision_model_repo

PACKAGE = "vision_model_repo"
ROOT = Path(vision_model_repo.__file__).parent
MODULES = {
    ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)): path for path in sorted(ROOT.rglob("*.py"))
}

# For each part, what it may import of ours beside itself. A longer name rules over a shorter one.
ALLOWED: dict[str, tuple[str, ...]] = {
    "errors": (),
    "settings": (),
    "garbage": (),
    "formats": ("errors",),
    "tasks": ("errors", "formats"),
    "models": ("errors", "garbage", "tasks", "formats"),
    "engine": ("errors", "garbage", "settings", "tasks", "formats", "models.base", "models.catalog", "models.hub"),
    # Of models, a protocol may know which families there are, and nothing of how they work.
    "api": ("errors", "settings", "tasks", "formats", "engine", "models.catalog", "deployments", "serving", "__init__"),
    "deployments": ("errors", "models.catalog", "models.pixano_plugin"),
    "serving": ("settings",),
}
# Where torch may be imported: at the top of a module, and inside functions.
TORCH_AT_TOP = ("models.",)
TORCH_INSIDE = ("models.", "engine.devices")
TORCH = ("torch", "torchvision", "transformers")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every absolute module that a file imports, and whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text())
    for child, at_top in _statements(tree, at_top=True):
        if isinstance(child, ast.Import):
            yield from ((alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{path} has a relative import"
            names = (f"{child.module}.{alias.name}" for alias in child.names)
            yield from ((name if name in MODULES else child.module or "", at_top) for name in names)


def _statements(node: ast.AST, *, at_top: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, at_top
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _statements(child, at_top=at_top and not inside)


def part_of(module: str) -> str:
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0]


def is_within(module: str, parts: tuple[str, ...]) -> bool:
    name = module.removeprefix(f"{PACKAGE}.") if module != PACKAGE else "__init__"
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) in ALLOWED])
def test_a_part_imports_only_what_lies_below_it(module: str) -> None:
    part = part_of(module)
    ours = {name for name, _ in imports(MODULES[module]) if name == PACKAGE or name.startswith(f"{PACKAGE}.")}
    upwards = {name for name in ours if not is_within(name, (part, *ALLOWED[part]))}
    assert not upwards, f"{module} must not import {sorted(upwards)}"


@pytest.mark.parametrize("module", MODULES)
def test_torch_lives_in_models_alone(module: str) -> None:
    name = module.removeprefix(f"{PACKAGE}.")
    found = [(at_top, other) for other, at_top in imports(MODULES[module]) if other.partition(".")[0] in TORCH]
    if name.startswith(TORCH_AT_TOP):
        return
    assert not [other for at_top, other in found if at_top], f"{module} imports torch when it is imported"
    assert not found or name.startswith(TORCH_INSIDE), f"{module} imports torch"


def test_the_parts_are_all_ruled() -> None:
    unruled = {part_of(module) for module in MODULES} - set(ALLOWED)
    assert unruled == {"__init__", "cli", "demo"}, "only the ways in may import everything"


def test_only_the_ways_in_know_the_demo() -> None:
    for module, path in MODULES.items():
        if part_of(module) not in ("cli", "demo"):
            assert not [name for name, _ in imports(path) if name.startswith(f"{PACKAGE}.demo")], module


@pytest.mark.parametrize("module", ["api.server", "cli", "serving", "demo.tour"])
def test_importing_does_not_import_torch(module: str) -> None:
    script = f"import sys, {PACKAGE}.{module}; sys.exit({{'torch', 'transformers'}} & set(sys.modules) or None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
