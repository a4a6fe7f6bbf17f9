"""The package as its imports show it: who needs whom, on how many floors, and in which circles.

Run as a program it prints the measures that a review of the layout starts from:

    python -m tests.support.architecture
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "falcon_mamba_app"

Imports = Mapping[str, frozenset[str]]


def modules(folder: Path = ROOT / PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def dotted(path: Path) -> str:
    """The module's name within the package: "engine.engine", "ui" for ui/__init__.py."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> set[str]:
    """What the file imports anywhere in it. Relative imports are refused."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def imports_between(paths: list[Path], prefix: str = PACKAGE) -> dict[str, frozenset[str]]:
    """For each module the others that it imports. A package's __init__ counts as the package."""
    known = {dotted(path): path for path in paths}
    return {
        name: frozenset(
            target
            for target in (
                found.removeprefix(f"{prefix}.")
                for found in imported(path)
                if found.startswith(f"{prefix}.")
            )
            if target in known and target != name
        )
        for name, path in known.items()
    }


def circles(imports: Imports) -> list[list[str]]:
    """Groups of modules that reach each other, the largest first (Tarjan's components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in sorted(imports[name]):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(imports):
        if name not in order:
            visit(name)
    return sorted(found, key=len, reverse=True)


def floors(imports: Imports) -> int:
    """How high the rooms stand on each other; those of one circle share a floor."""
    group_of = {name: tuple(group) for group in circles(imports) for name in group}
    heights: dict[tuple[str, ...], int] = {}

    def height(group: tuple[str, ...]) -> int:
        if group not in heights:
            below = {
                group_of.get(target, (target,)) for name in group for target in imports[name]
            } - {group}
            heights[group] = 1 + max((height(other) for other in below), default=0)
        return heights[group]

    return max((height(group_of.get(name, (name,))) for name in imports), default=0)


def room_of(name: str, folder: str) -> str | None:
    """The part of `folder` that the module belongs to, itself or the folder it is in."""
    if folder and not name.startswith(f"{folder}."):
        return None
    rest = name.removeprefix(folder).lstrip(".")
    return rest.partition(".")[0] or None


def between_rooms(imports: Imports, folder: str) -> dict[str, frozenset[str]]:
    """The imports between the files and folders that lie directly in `folder`."""
    rooms: dict[str, set[str]] = {}
    for name, targets in imports.items():
        room = room_of(name, folder)
        if room is not None:
            others = {room_of(target, folder) for target in targets}
            rooms.setdefault(room, set()).update(other for other in others if other is not None)
    return {room: frozenset(targets - {room}) for room, targets in rooms.items()}


def main() -> None:
    imports = imports_between(modules())
    folders = sorted({name.rpartition(".")[0] for name in imports})
    print(f"{'folder':24}{'rooms':>6}{'floors':>8}{'arrows':>8}{'circles':>9}")
    for folder in folders:
        rooms = between_rooms(imports, folder)
        arrows = sum(map(len, rooms.values()))
        row = f"{len(rooms):6}{floors(rooms):8}{arrows:8}{len(circles(rooms)):9}"
        print(f"{folder or PACKAGE:24}{row}")
    print(f"circles between modules: {len(circles(imports))}")


if __name__ == "__main__":
    main()
