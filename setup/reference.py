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
| market, registry, token,    | contracts/interfaces                                             |
| disputes, beacon            |                                                                  |
| skypilot-warned, -refused   | the tables of `minga.client.jobfile`                             |

Rule: the same sources give the same bytes, whatever the machine, its terminal or its environment.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MARK = re.compile(r"(<!-- part: ([a-z-]+) \(made by `make docs`\) -->\n).*?(<!-- end -->)", re.DOTALL)
HELP_COLUMNS = 100


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
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
    import minga.client.functions
    import minga.core.errors

    rows = []
    for module in (minga.core.errors, minga.client.functions):
        for item in vars(module).values():
            is_own = inspect.isclass(item) and item.__module__ == module.__name__
            if is_own and issubclass(item, minga.core.errors.MingaError) and "code" in vars(item):
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
    """Classes of ours that the annotations of public names mention, and theirs in turn; but for wire models."""
    import minga
    from minga.core.spec import Model

    found: dict[str, Any] = {}
    waiting = [getattr(minga, name) for name in minga.__all__ if name != "__version__"]
    seen = set(map(id, waiting))
    while waiting:
        for module, note in annotations_of(waiting.pop()):
            for name in re.findall(r"[A-Z][A-Za-z]+", note):
                other = getattr(sys.modules[module], name, None)
                if not inspect.isclass(other) or id(other) in seen or name in minga.__all__:
                    continue
                seen.add(id(other))
                if other.__module__.startswith("minga.") and not issubclass(other, Model):
                    found[name] = other
                    waiting.append(other)
    return found


def annotations_of(item: Any) -> Iterator[tuple[str, str]]:
    """Every annotation in a class's public face, or in a function, with the module that it counts in."""
    for _, value in public_members(item) if inspect.isclass(item) else [("", item)]:
        value = plain(value)
        for note in getattr(value, "__annotations__", {}).values():
            yield value.__module__, str(note)
    if is_dataclass(item):
        yield from ((item.__module__, str(field.type)) for field in fields(item))


def plain(value: Any) -> Any:
    """The function behind a method of any kind, or a property."""
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


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
        text += f"\n### {name}.{member}\n\n"
        if not isinstance(value, property):
            text += f"```python\n{signature(member, plain(value))}\n```\n\n"
        text += prose(words_of(plain(value)))
    return text


def words_of(function: Any) -> str:
    """A docstring; of one that says "See `Class.method`", that one's, with what follows."""
    text = inspect.cleandoc(function.__doc__ or "")
    found = re.match(r"See `(\w+)\.(\w+)`[.;]?\s*", text)
    other = getattr(sys.modules[function.__module__], found[1], None) if found else None
    if found is None or other is None:
        return text
    rest = text[found.end() :]
    return inspect.cleandoc(getattr(other, found[2]).__doc__) + (f"\n\nHere it {rest}" if rest else "")


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
        stars = ("*" if value.kind is value.VAR_POSITIONAL else "**") if "VAR" in value.kind.name else ""
        text = stars + value.name
        text += "" if value.annotation is value.empty else f": {value.annotation}"
        words.append(text if value.default is value.empty else f"{text} = {value.default!r}")
    back = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    return f"{name}({', '.join(words)}){back}"


def default(field: Any) -> str:
    """A dataclass field's default."""
    if field.default is not MISSING:
        made = type(field.default)
        return f"`{made.__name__}()`" if is_dataclass(made) else f"`{field.default!r}`"
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
_STRUCT = re.compile(r"^struct (\w+):(.*)\n((?:    .+\n)+)", re.MULTILINE)


def interface(name: str) -> str:
    """The views, functions and events of one contract, from its interface."""
    source = (ROOT / "contracts" / "interfaces" / f"I{name}.vyi").read_text(encoding="utf-8")
    views, parts = [], []
    for is_view, function, takes, gives, doc in _FUNCTION.findall(source):
        words = " ".join(takes.split()).removesuffix(",")
        call = f"{function}({words})" + (f" -> {gives}" if gives else "")
        if is_view:
            views.append((f"`{call}`", natspec(doc).replace("- gives ", "")))
        else:
            parts.append(f"### {function}\n\n```text\n{call}\n```\n\n{natspec(doc)}")
    events = [(f"`{event}`", members(body), note.strip(" #")) for event, note, body in _EVENT.findall(source)]
    structs = [(f"`{struct}`", members(body), note.strip(" #")) for struct, note, body in _STRUCT.findall(source)]
    text = table(("view", "gives"), views) + "\n" + "\n".join(parts)
    if events:
        text += f"\n### Events of {name}\n\n" + table(("event", "fields", "note"), events)
    if structs:
        text += f"\n### Structs of {name}\n\n" + table(("struct", "fields", "note"), structs)
    return text


def members(body: str) -> str:
    """The fields of an event or struct on one line; what their comments say in brackets."""
    found = []
    for line in body.splitlines():
        field, _, note = line.strip().partition("#")
        field = re.sub(r"indexed\((.*)\)", r"\1 indexed", field.strip())
        found.append(f"`{field}`" + (f" ({note.strip()})" if note else ""))
    return ", ".join(found)


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
    "disputes": lambda: interface("Disputes"),
    "beacon": lambda: interface("Beacon"),
    "skypilot-warned": warned,
    "skypilot-refused": refused,
}


def fill(page: str) -> str:
    """A page with its parts made anew."""
    return MARK.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}", page)


def stale(write: bool = False) -> list[Path]:
    """The pages that differ from what would be written; written if so asked."""
    found = []
    for path in sorted(DOCS.rglob("*.md")):
        old = path.read_text(encoding="utf-8")
        new = fill(old)
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
