"""Write what the program knows about itself into the documents (`make docs`), or check that it stands there.

    python setup/reference.py            write
    python setup/reference.py --check    compare; exit 1 and name the pages that differ

A page under docs/ marks where a part goes; prose around it is written by hand and never touched:

    <!-- part: errors (made by `make docs`) -->
    …
    <!-- end -->

| part                        | made from                                                        |
|-----------------------------|------------------------------------------------------------------|
| cli                         | the commands' own `--help`                                       |
| errors, reverts             | the error classes of `minga.core` and `minga.chain`              |
| routes, messages            | the provider's table of routes and the wire models               |
| python, types               | `minga.__all__` and what its methods return                      |
| market, registry, token     | contracts/interfaces                                             |
| skypilot-warned, -refused   | the tables of `minga.client.jobfile`                             |

Rule: the same sources give the same bytes, whatever the machine, its terminal or its environment.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MARK = re.compile(r"(<!-- part: ([a-z-]+) \(made by `make docs`\) -->\n).*?(<!-- end -->)", re.DOTALL)
HELP_COLUMNS = 100


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def first_paragraph(text: str | None) -> str:
    """The first paragraph of a docstring as one line."""
    return " ".join((inspect.cleandoc(text or "").split("\n\n")[0]).split())


# ------------------------------------------------------------------------------------------------------ command line


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that help shows, `minga` first, as (words, command)."""
    import typer.main

    from minga.cli.main import app

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, child in getattr(command, "commands", {}).items():
            if not child.hidden:
                yield from walk(f"{words} {name}", child)

    return walk("minga", typer.main.get_command(app))


def cli() -> str:
    """`--help` of every command, as it is printed."""
    parts = []
    for words, command in commands():
        context = command.context_class(
            command, info_name=words, terminal_width=HELP_COLUMNS, help_option_names=["-h", "--help"]
        )
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## {words}\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------------------------ errors


def errors() -> str:
    """Every error class that a user can meet, but for the contracts' own."""
    import minga.core.errors as known

    rows = []
    for item in vars(known).values():
        if inspect.isclass(item) and issubclass(item, known.MingaError) and "code" in vars(item):
            numbers = (str(item.exit_code), str(item.http_status))
            rows.append((f"`{item.code}`", item.blame, *numbers, first_paragraph(item.__doc__)))
    return table(("code", "blame", "exit code", "HTTP", "meaning"), rows)


def reverts() -> str:
    """Every reason for which a contract refuses, with its code and what to do."""
    from minga.chain.errors import REFUSALS

    rows = [
        (f"`{reason}`", f"`{item.code}`", first_paragraph(item.__doc__), item.advice)
        for reason, item in sorted(REFUSALS.items())
    ]
    return table(("the contract says", "code", "meaning", "what to do"), rows)


# -------------------------------------------------------------------------------------------------------------- HTTP


def routes() -> str:
    """The provider's routes."""
    from minga.provider.serving import ROUTES

    rows = []
    for route, _ in ROUTES:
        who = "anyone" if route.is_public else "the lease"
        rows.append((f"`{route.method}`", f"`{route.path}`", who, kind(route.body), kind(route.answer), route.summary))
    return table(("method", "path", "for", "body", "answer", "what"), rows)


def kind(body: Any) -> str:
    """A body in one word: a model's name as a link, or a media type."""
    if body is None:
        return "–"
    return f"`{body}`" if isinstance(body, str) else f"[{body.__name__}](#{body.__name__.lower()})"


def messages() -> str:
    """The fields of every wire model."""
    import minga.core.spec as spec
    import minga.protocol.wire as wire

    found: dict[str, Any] = {}
    for module in (wire, spec):
        for name, item in vars(module).items():
            if inspect.isclass(item) and issubclass(item, spec.Model) and item is not spec.Model:
                found.setdefault(name, item)
    parts = []
    for name, model in sorted(found.items()):
        schema = model.model_json_schema()
        rows = [
            (f"`{field}`", shape(value), "yes" if field in schema.get("required", ()) else "no")
            for field, value in schema["properties"].items()
        ]
        parts.append(f"### {name}\n\n{inspect.cleandoc(model.__doc__)}\n\n" + table(("field", "form", "needed"), rows))
    return "\n".join(parts)


def shape(value: dict[str, Any]) -> str:
    """A field's JSON schema in a few words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(shape(item) for item in value["anyOf"])
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return " ".join(f"`{item}`" for item in value["enum"])
    text = str(value.get("type", "any"))
    if text == "array":
        text = "list of " + shape(value.get("items", {}))
    if text == "object" and isinstance(value.get("additionalProperties"), dict):
        text = "map to " + shape(value["additionalProperties"])
    limits = {"minimum": "≥", "maximum": "≤", "minLength": "length ≥", "maxLength": "length ≤", "maxItems": "at most"}
    notes = [f"{sign} {value[name]:,}" for name, sign in limits.items() if name in value]
    if "pattern" in value:
        notes.append(f"`{value['pattern']}`")
    return ", ".join([text, *notes])


# ------------------------------------------------------------------------------------------------------------ Python


def python() -> str:
    """Every public name of `minga`."""
    import minga

    return "\n".join(describe(name, getattr(minga, name)) for name in sorted(minga.__all__) if name != "__version__")


def types() -> str:
    """What the public names' methods take and return."""
    return "\n".join(describe(name, item) for name, item in sorted(returned_types().items()))


def returned_types() -> dict[str, Any]:
    """Dataclasses of ours that annotations of public names mention, and theirs in turn."""
    import minga

    found: dict[str, Any] = {}
    waiting = [getattr(minga, name) for name in minga.__all__ if name != "__version__"]
    seen = set(map(id, waiting))
    while waiting:
        item = waiting.pop()
        for name in re.findall(r"[A-Z][A-Za-z]+", " ".join(annotations_of(item))):
            other = getattr(sys.modules[item.__module__], name, None)
            if other is not None and id(other) not in seen and is_dataclass(other) and inspect.isclass(other):
                seen.add(id(other))
                found[name] = other
                waiting.append(other)
    return found


def annotations_of(item: Any) -> Iterator[str]:
    """Every annotation in a class's public face, or in a function."""
    members = [value for _, value in public_members(item)] if inspect.isclass(item) else [item]
    for value in members:
        value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        yield from (str(note) for note in getattr(value, "__annotations__", {}).values())
    if is_dataclass(item):
        yield from (str(field.type) for field in fields(item))


def describe(name: str, item: Any) -> str:
    """One class or function: how it is called, what it says, its fields and methods."""
    if inspect.isclass(item) and issubclass(item, Exception):
        return f"## {name}\n\n{prose(item.__doc__)}"
    if not inspect.isclass(item):
        return f"## {name}\n\n```python\n{signature(name, item)}\n```\n\n{prose(item.__doc__)}"
    if is_dataclass(item):
        rows = [(f"`{field.name}`", f"`{field.type}`", default(field)) for field in fields(item)]
        text = f"## {name}\n\n{prose(item.__doc__)}\n" + table(("field", "type", "default"), rows)
    else:
        text = f"## {name}\n\n{prose(item.__doc__)}"
    for member, value in public_members(item):
        if isinstance(value, property):
            text += f"\n### {name}.{member}\n\n{prose(value.fget.__doc__)}"
        else:
            call = signature(member, getattr(value, "__func__", value))
            text += f"\n### {name}.{member}\n\n```python\n{call}\n```\n\n{prose(value.__doc__)}"
    return text


def public_members(item: type[Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties, also those of our own base classes, in the order of their definition."""
    seen: set[str] = set()
    for owner in item.__mro__:
        if not owner.__module__.startswith("minga"):
            continue
        for name, value in vars(owner).items():
            is_method = inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)
            if is_method and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, value


def signature(name: str, item: Callable[..., Any]) -> str:
    """How a function is called, without `self`; annotations as they are written."""
    words, bare = [], False
    found = inspect.signature(item)
    for place, value in enumerate(found.parameters.values()):
        if place == 0 and value.name in ("self", "cls"):
            continue
        if value.kind is value.KEYWORD_ONLY and not bare:
            bare = True
            words.append("*")
        bare = bare or value.kind is value.VAR_POSITIONAL
        text = {value.VAR_POSITIONAL: "*", value.VAR_KEYWORD: "**"}.get(value.kind, "") + value.name
        text += "" if value.annotation is value.empty else f": {value.annotation}"
        words.append(text if value.default is value.empty else f"{text} = {value.default!r}")
    back = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    return f"{name}({', '.join(words)}){back}"


def default(field: Any) -> str:
    """A dataclass field's default."""
    if field.default is not MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is MISSING else "empty"


def prose(text: str | None) -> str:
    """A docstring in Markdown: its sections become lists."""
    lines = []
    for line in inspect.cleandoc(text or "").splitlines():
        item = re.match(r"^    (\S[^:]*): (.*)", line)
        if re.fullmatch(r"(Args|Raises|Returns|Yields):", line):
            lines.append(f"*{line[:-1].lower()}*\n")
        elif item:
            lines.append(f"- `{item[1]}`: {item[2]}")
        else:
            lines.append(re.sub(r"^    (?=\S)", "- ", line) if line.startswith("    ") and lines[-1:] != [] else line)
    return "\n".join(lines).strip() + "\n"


# --------------------------------------------------------------------------------------------------------- contracts

_FUNCTION = re.compile(r'@external\n(@view\n)?def (\w+)\((.*?)\)(?: -> (.+?))?:\n    """\n(.*?)    """', re.DOTALL)
_EVENT = re.compile(r"^event (\w+):(.*)\n((?:    .+\n)+)", re.MULTILINE)


def interface(name: str) -> str:
    """The functions and events of one contract, from its interface."""
    source = (ROOT / "contracts" / "interfaces" / f"I{name}.vyi").read_text(encoding="utf-8")
    parts = []
    for view, function, takes, gives, doc in _FUNCTION.findall(source):
        takes = ", ".join(takes.replace("\n", " ").split()).replace(",,", ",").rstrip(", ").replace(":,", ":")
        call = f"{function}({takes})" + (f" -> {gives}" if gives else "") + ("  # view" if view else "")
        parts.append(f"### {function}\n\n```text\n{call}\n```\n\n{natspec(doc)}\n")
    rows = []
    for event, note, body in _EVENT.findall(source):
        body = re.sub(r"\s*#.*", "", body)
        takes = ", ".join(line.strip().replace("indexed(", "*").replace(")", "*") for line in body.splitlines())
        rows.append((f"`{event}`", takes, note.strip(" #")))
    events = "\n### Events\n\nIndexed fields are in italics.\n\n" + table(("event", "fields", "note"), rows)
    return "\n".join(parts) + events


def natspec(doc: str) -> str:
    """A contract function's words: notice and parameters as text, its refusals as one line."""
    text = ""
    for tag, words in re.findall(r"@(\w+) (.*?)(?=\n\s*@\w|\Z)", doc, re.DOTALL):
        line = " ".join(words.split())
        name, _, rest = line.partition(" ")
        text += {
            "notice": f"{line}\n",
            "param": f"\n- `{name}`: {rest}\n",
            "return": f"\n- gives {line}\n",
            "dev": f"\n*{line}*\n",
        }[tag]
    return text.strip() + "\n"


# ---------------------------------------------------------------------------------------------------------- job file


def warned() -> str:
    """SkyPilot's fields that give a warning."""
    from minga.client.jobfile import HARMLESS

    return (
        ", ".join(f"`{place}.{name}`".replace("`.", "`") for place, names in HARMLESS.items() for name in names) + "\n"
    )


def refused() -> str:
    """SkyPilot's fields that are refused, and what to write instead."""
    from minga.client.jobfile import REFUSED

    return table(("field", "instead"), [(f"`{name}`", remedy) for name, remedy in REFUSED.items()])


PARTS: dict[str, Callable[[], str]] = {
    "cli": cli,
    "errors": errors,
    "reverts": reverts,
    "routes": routes,
    "messages": messages,
    "python": python,
    "types": types,
    "market": lambda: interface("Market"),
    "registry": lambda: interface("Registry"),
    "token": lambda: interface("Token"),
    "skypilot-warned": warned,
    "skypilot-refused": refused,
}


def fill(page: str, made: dict[str, str]) -> str:
    """A page with its parts made anew; `made` remembers parts."""

    def part(found: re.Match[str]) -> str:
        text = made.setdefault(found[2], PARTS[found[2]]())
        return f"{found[1]}\n{text}\n{found[3]}"

    return MARK.sub(part, page)


def stale(write: bool = False) -> list[Path]:
    """The pages that differ from what would be written; written if so asked."""
    made: dict[str, str] = {}
    found = []
    for path in sorted(DOCS.rglob("*.md")):
        old = path.read_text(encoding="utf-8")
        new = fill(old, made)
        if new != old:
            found.append(path)
            if write:
                path.write_text(new, encoding="utf-8")
    return found


def main(arguments: list[str]) -> int:
    """Write or check all pages."""
    check = arguments == ["--check"]
    found = [str(path.relative_to(ROOT)) for path in stale(write=not check)]
    if found:
        print(("stale; run `make docs`: " if check else "written: ") + ", ".join(found))
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
