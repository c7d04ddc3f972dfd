"""The shape that STYLE.md promises, measured over `src/minga`; each failure lists the offenders.

Length counts lines from `def` to the last line of the body, docstring included.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "minga"
FUNCTION_LINES_P95, FUNCTION_LINES_MAX = 45, 70
FILE_LINES_P90, FILE_LINES_MAX = 300, 500
PUBLIC_DOCSTRINGS_MIN = 0.95
SKIPPED = {".git", "node_modules", "build", "dist", "__pycache__"}
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".sh", ".vy", ".vyi", ".html", ".css", ""}
IMPURE = {
    "anyio", "asyncio", "datetime", "httpx", "io", "os", "random", "secrets", "select", "shutil", "signal", "socket",
    "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
AGENTS = ("protocol/job.py", "provider/agent.py", "validator/agent.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module of the package, parsed."""
    return {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def functions() -> Iterator[tuple[str, Function]]:
    """Every function, method and nested function, as `path:line name`."""
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def lines_of(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def percentile(values: list[int], share: float) -> int:
    """The smallest value that at least `share` of `values` do not exceed."""
    return sorted(values)[max(0, -(-len(values) * round(share * 100) // 100) - 1)]


def imports(tree: ast.Module) -> set[str]:
    """The top-level names of every module that `tree` imports, at its head or inside a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def public_definitions(body: list[ast.stmt], where: str) -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes in `body`, and the public methods of the latter; none that is inside a function."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{where}:{node.lineno} {node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, where)


def text_files(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Every text file of the checkout with one of `suffixes`, as (path, text)."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part in SKIPPED or (part.startswith(".") and part != ".ci") for part in parts[:-1])
        if not hidden and not parts[0].startswith(".venv") and path.suffix in suffixes and path.is_file():
            yield "/".join(parts), path.read_text(errors="replace")


def test_percentile_is_the_nearest_rank():
    assert [percentile(list(range(1, 101)), share) for share in (0.9, 0.95, 1)] == [90, 95, 100]
    assert percentile([7], 0.95) == 7
    assert percentile([1, 2, 3], 0.5) == 2


def test_functions_are_short():
    lengths = {name: lines_of(node) for name, node in functions()}
    long = {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX}
    assert not long, f"over {FUNCTION_LINES_MAX} lines: {long}"
    p95 = percentile(list(lengths.values()), 0.95)
    over = sorted(name for name, lines in lengths.items() if lines > FUNCTION_LINES_P95)
    assert p95 <= FUNCTION_LINES_P95, f"p95 is {p95} lines: {over}"


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    long = {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}
    assert not long, f"over {FILE_LINES_MAX} lines: {long}"
    p90 = percentile(list(lengths.values()), 0.9)
    over = {name: lines for name, lines in lengths.items() if lines > FILE_LINES_P90}
    assert p90 <= FILE_LINES_P90, f"p90 is {p90} lines: {over}"


def test_every_module_has_a_docstring():
    bare = [str(path.relative_to(ROOT)) for path, tree in modules().items() if not ast.get_docstring(tree)]
    assert not bare, f"no module docstring: {bare}"


def test_every_argument_and_result_is_annotated():
    bare = []
    for name, node in functions():
        given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        given += [extra for extra in (node.args.vararg, node.args.kwarg) if extra is not None]
        missing = [arg.arg for arg in given if arg.annotation is None and arg.arg not in ("self", "cls")]
        if missing or node.returns is None:
            bare.append(f"{name}({', '.join(missing)})")
    assert not bare, f"not annotated: {bare}"


def test_public_names_have_docstrings():
    public = [
        found
        for path, tree in modules().items()
        if not path.name.startswith("_") or path.name == "__init__.py"
        for found in public_definitions(tree.body, str(path.relative_to(ROOT)))
    ]
    bare = [name for name, node in public if not ast.get_docstring(node)]  # type: ignore[arg-type]
    share = 1 - len(bare) / len(public)
    assert share >= PUBLIC_DOCSTRINGS_MIN, f"{share:.1%} of {len(public)} public names have a docstring; not: {bare}"


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text()
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        holds_prose = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if holds_prose and ast.get_docstring(node) is not None:
            prose.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


def test_there_is_at_least_as_much_test_as_source():
    source = sum(code_lines(path) for path in modules())
    tests = sum(code_lines(path) for path in (ROOT / "tests").rglob("*.py"))
    assert tests >= source, f"{tests} lines of tests for {source} of source"


def test_no_module_is_called_utils():
    vague = [str(path.relative_to(ROOT)) for path in modules() if re.search(r"utils?|helpers?|misc", path.stem)]
    assert not vague


def test_agents_take_clock_and_dice_as_arguments():
    present = [path for path in modules() if path.relative_to(SOURCE).as_posix() in AGENTS]
    assert present, "no agent found"
    impure = {str(path.relative_to(ROOT)): imports(modules()[path]) & {"time", "random"} for path in present}
    assert not any(impure.values()), impure


@pytest.mark.parametrize("package", ["core", "protocol"])
def test_pure_packages_import_no_clock_dice_or_io(package):
    impure = {
        str(path.relative_to(ROOT)): sorted(imports(tree) & IMPURE)
        for path, tree in modules().items()
        if path.is_relative_to(SOURCE / package) and imports(tree) & IMPURE
    }
    assert not impure, impure


def test_only_the_chain_package_imports_web3():
    others = [
        str(path.relative_to(ROOT))
        for path, tree in modules().items()
        if "web3" in imports(tree) and not path.is_relative_to(SOURCE / "chain")
    ]
    assert not others


def test_no_file_names_the_machine_it_was_written_on():
    named = [name for name, text in text_files(*TEXT) if str(ROOT) in text]
    assert not named


def test_nothing_is_left_for_later():
    later = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")
    found = [name for name, text in text_files(".py", ".vy", ".vyi", ".sh") if later.search(text)]
    assert not found
