"""The documents say what is so: commands parse, links lead somewhere, examples load, made parts are up to date.

Commands are parsed by the command line's own parser, and not run; job files are read by the job file's own reader.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minga
from minga.chain.chain import ChainSpec
from minga.client.jobfile import load_job_file, parse_job

ROOT = Path(__file__).resolve().parent.parent
BY_HAND = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in BY_HAND}
LINE_MAX = 145
STATES = ("works", "partly", "not yet")
PROMISES = (
    "A job, not a machine", "Pay only for working seconds", "An honest quote first", "A budget that cannot be broken",
    "Proven hardware, proven work", "Nobody to trust", "Earning in one command", "AI work first",
)  # fmt: skip
SYNONYMS = r"renters?|lessees?|lessors?|escrow|sellers?|buyers?|marketplace|rigs?|gig|invoices?"
BOASTS = r"blazing\w*|seamless\w*|revolutionary|world.class|up to \d+ ?%|simply|effortless\w*"


@cache
def reference() -> ModuleType:
    """The generator of the made parts."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "setup" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def command_tree() -> Any:
    import typer.main

    from minga.cli.main import app

    return typer.main.get_command(app)


def blocks(*languages: str) -> list[Any]:
    """Every fenced block in one of `languages`, as (page, text), named by page and line."""
    found = []
    for page, text in PAGES.items():
        for block in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if block[1] in languages:
                line = text[: block.start()].count("\n") + 1
                found.append(pytest.param(page, block[2], id=f"{page}:{line}"))
    return found


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def parse_command(words: list[str]) -> None:
    """Parse the words after `minga` as the program would, without running anything; raises what the program shows."""
    command = command_tree()
    context = command.make_context("minga", list(words))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


# --------------------------------------------------------------------------------------------------- made by a program


def test_made_parts_are_up_to_date():
    stale = [str(path.relative_to(ROOT)) for path in reference().stale()]
    assert not stale, "run `make docs`"


def test_every_part_has_one_place():
    places = [found[1] for text in PAGES.values() for found in re.finditer(r"<!-- part: ([a-z-]+) ", text)]
    assert sorted(places) == sorted(reference().PARTS)


def test_a_changed_part_is_found_and_made_again(tmp_path, monkeypatch):
    made = reference()
    page = tmp_path / "errors.md"
    text = (ROOT / "docs" / "errors.md").read_text()
    page.write_text(text.replace("| `no-match` |", "| `no-luck` |"))
    monkeypatch.setattr(made, "DOCS", tmp_path)
    monkeypatch.setattr(made, "ROOT", tmp_path)
    assert made.main(["--check"]) == 1
    assert made.main([]) == 0
    assert page.read_text() == text
    assert made.main(["--check"]) == 0


def test_every_public_name_is_documented():
    text = PAGES["docs/reference/python.md"]
    missing = [name for name in minga.__all__ if name != "__version__" and f"\n## {name}\n" not in text]
    assert not missing
    unmentioned = [name for name in minga.__all__ if name != "__version__" and name not in PAGES["docs/sdk.md"]]
    assert not unmentioned


def test_every_command_is_documented():
    text = PAGES["docs/reference/cli.md"]
    missing = [words for words, _ in reference().commands() if f"\n## {words}\n" not in text]
    assert not missing


def test_every_exit_code_is_documented():
    from minga.cli.main import EXIT_CODES

    found = re.findall(r"^\| (\d+) \| ", PAGES["docs/errors.md"], re.MULTILINE)
    assert [int(code) for code in found] == list(EXIT_CODES)


def test_every_field_of_a_job_file_is_documented():
    from minga.client.jobfile import KNOWN

    text = PAGES["docs/job-file.md"]
    assert not [name for name in KNOWN if name != "resources" and f"| `{name}` |" not in text]


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize(("page", "text"), blocks("sh"))
def test_commands_are_commands(page, text):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    assert any(lines), "an empty block"
    for words in filter(None, lines):
        program, *rest = words
        if program == "minga":
            parse_command(rest)
        elif program == "make":
            assert set(rest) <= targets, words
        elif program == "python":
            assert any((folder / rest[0]).is_file() for folder in (ROOT, (ROOT / page).parent)), words
        else:
            assert words == [".", ".venv/bin/activate"], f"what is {words}?"


def test_a_wrong_command_would_be_found():
    for line in ("run --nope", "walk", "provide --price", "wallet nothing"):
        with pytest.raises(Exception, match=r"No such|Missing|requires"):
            parse_command(line.split())


def test_commands_named_in_the_text_exist():
    commands = {words.removeprefix("minga").strip() for words, _ in reference().commands()}
    hidden = set(command_tree().commands)
    for page, text in PAGES.items():
        for words in re.findall(r"`minga ([^`]+)`", prose(text)):
            named = [word for word in words.split("--")[0].split() if re.fullmatch(r"[a-z-]+", word)]
            assert words.startswith("-") or " ".join(named[:1]) in commands | hidden, f"{page}: minga {words}"
            for option in re.findall(r"(?<!\S)--[a-z-]+", words):
                assert option in every_option(), f"{page}: minga {words}"


def test_options_named_in_the_text_exist():
    known = every_option() | {"--check"}
    for page, text in PAGES.items():
        for option in re.findall(r"`(--[a-z-]+)", prose(text)):
            assert option in known, f"{page}: {option}"


@cache
def every_option() -> set[str]:
    """Every long option of every command."""
    found = {"--help", "--install-completion", "--show-completion"}
    for _, command in reference().commands():
        for item in command.params:
            found.update(name for name in (*item.opts, *item.secondary_opts) if name.startswith("--"))
    return found


# ------------------------------------------------------------------------------------------------------------ examples


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_job_files_are_read(page, text, tmp_path):
    (tmp_path / "data").mkdir()
    assert parse_job(text, tmp_path).spec.run


def test_job_files_of_examples_are_read():
    found = sorted((ROOT / "examples").glob("*/*.yaml"))
    assert found
    for path in found:
        if not re.search(r"^\s+/.*: ~/", path.read_text(), re.MULTILINE):  # what it mounts may not be fetched yet
            load_job_file(path)


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_examples_compile_and_name_public_names(page, text):
    if page == "docs/reference/python.md":  # signatures
        return
    tree = ast.parse(text)
    compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "minga"
    ]
    assert set(names) <= set(minga.__all__)


@pytest.mark.parametrize(("page", "text"), blocks("json"))
def test_json_examples_are_json(page, text):
    value = json.loads(text)
    if "chain" in value and "boards" in value:
        assert ChainSpec.from_dict(value["chain"]).chain_id


def test_every_block_says_its_language():
    for page, text in PAGES.items():
        bare = re.findall(r"^```(\w*)\n.*?^```", text, re.MULTILINE | re.DOTALL)
        assert set(bare) <= {"sh", "yaml", "python", "json", "text"}, page


# --------------------------------------------------------------------------------------------------- links and wording


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[page])):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        there = path.exists()
        if there and anchor:
            headings = re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
            there = anchor in map(slug, headings)
        if not there:
            broken.append(target)
    assert not broken


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", PAGES[page]):
            other = str(((ROOT / page).parent / target).resolve().relative_to(ROOT))
            if other in PAGES and other not in reached:
                waiting.append(other)
    assert sorted(name for name in PAGES if not name.startswith("examples/")) == sorted(
        name for name in reached if not name.startswith("examples/")
    )


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_the_text_are_there(page):
    """Paths in code style that begin with a folder of this checkout; globs and names in capitals are patterns."""
    tops = "tests|benches|contracts|src|docs|setup|examples|\\.ci"
    missing = []
    for name in re.findall(rf"`((?:{tops})/[\w./-]*)", PAGES[page]):
        if not (ROOT / name).exists():
            missing.append(name)
    for name in re.findall(
        r"`((?:core|protocol|chain|runtimes|transport|store|client|provider|explorer|cli)/\w+\.py)`", PAGES[page]
    ):
        if not (ROOT / "src" / "minga" / name).exists():
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_words_are_those_of_the_glossary_and_nothing_boasts(page):
    found = re.findall(rf"\b(?:{SYNONYMS}|{BOASTS}|TO[D]O|TB[D])\b", PAGES[page], re.IGNORECASE)
    assert not found
    assert str(ROOT) not in PAGES[page]
    assert str(Path.home()) + "/" not in PAGES[page]


def test_lines_written_by_hand_are_short():
    """But for tables and pictures: so that a change shows as a small diff."""
    for page, text in PAGES.items():
        text = re.sub(r"<!-- part: .*?<!-- end -->", "", text, flags=re.DOTALL)
        long = [line for line in text.splitlines() if len(line) > LINE_MAX and not line.startswith(("|", "![", "["))]
        assert not long, f"{page}: {long}"


# ------------------------------------------------------------------------------------------------ what is promised


def status_rows() -> list[list[str]]:
    """The rows of the README's status table: feature, state, what shows it."""
    section = PAGES["README.md"].split("## What works", 1)[1].split("\n## ", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:2] == "| "
    ]
    return rows[1:]


def test_the_status_table_has_every_promise():
    features = " ".join(row[0] for row in status_rows())
    assert not [promise for promise in PROMISES if promise not in features]
    assert not [promise for promise in PROMISES if promise not in PAGES["ARCHITECTURE.md"]]


def test_what_works_is_shown_by_something_that_can_be_run():
    rows = status_rows()
    assert len(rows) >= 20
    for feature, state, shown in rows:
        word, _, limit = state.partition(":")
        assert word in STATES, feature
        names = re.findall(r"`([^`]+)`", shown)
        if word != "not yet":
            assert names, f"{feature}: nothing shows it"
        if word == "partly":
            assert limit, f"{feature}: which part?"
        for name in names:
            if name.startswith("tests/"):
                assert (ROOT / name).is_file(), f"{feature}: {name}"


def test_gates_are_those_of_ci():
    block = re.search(r"GATES=\((.*?)^\)", (ROOT / ".ci" / "run").read_text(), re.DOTALL | re.MULTILINE)
    assert block is not None
    gates = re.findall(r'^\s*"([^|"]+)\|', block[1], re.MULTILINE)
    table = PAGES["CONTRIBUTING.md"].split("## Gates", 1)[1]
    assert re.findall(r"^\| ([a-z ]+?) \| (?!what)", table, re.MULTILINE) == gates
