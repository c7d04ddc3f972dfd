"""YAML from untrusted hands, with the line of every field.

A subset on purpose: one document, plain tags, text keys, no duplicates. Numbers with a point stay text, since money
must be exact; `yes`, `on` and `10:30` are text, `true` and `false` booleans. Aliases are allowed as long as the whole
tree stays small, which stops documents that grow when they are read.

Does not know: what fields mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from minga.core.errors import InvalidJobFile, TooLarge

BYTES_MAX = 1 << 18
NODES_MAX = 20_000
DEPTH_MAX = 16

_STANDARD = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})

# libyaml's composer crashes the process on deep nesting; the Python one cannot.
Loader: Any = yaml.SafeLoader


@dataclass
class Tree:
    """A value, and the line (from 1) of each field by its path (`resources.cpus`, `outputs.0`)."""

    value: Any
    lines: dict[str, int] = field(default_factory=dict)


def parse(text: str) -> Tree:
    """Parse one document.

    Raises:
        TooLarge: over 256 KiB of text, or 20,000 nodes with aliases written out.
        InvalidJobFile: not YAML, or outside the subset; the fact names the line.
    """
    if len(text) > BYTES_MAX:
        raise TooLarge(f"the job file has {len(text)} characters, the limit is {BYTES_MAX}", "send less")
    try:
        _check_shape(text)
        node = yaml.compose(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidJobFile(f"line {line}: {error.problem or error.context}", "see a YAML reference") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidJobFile(f"not YAML: {error}"[:200], "write UTF-8 YAML") from None
    builder = _Builder()
    value = builder.build(node, "", 0) if node is not None else None
    return Tree(value, builder.lines)


def _check_shape(text: str) -> None:
    """Stop at the first token that is too deep: composing recurses, and scanning is quadratic in the depth."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise InvalidJobFile(f"line {line}: nested over {DEPTH_MAX} levels", "write it flatter")
        if nodes > NODES_MAX:
            raise TooLarge(f"the job file holds over {NODES_MAX} values", "write less")


class _Builder:
    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._nodes = 0

    def build(self, node: Any, path: str, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise TooLarge(f"the job file holds over {NODES_MAX} values", "write less, without aliases")
        if depth > DEPTH_MAX:
            raise InvalidJobFile(f"line {line}: nested over {DEPTH_MAX} levels", "write it flatter")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != _STANDARD + "seq":
                raise InvalidJobFile(f"line {line}: the tag {node.tag[:40]} is not allowed", "remove the tag")
            return [self.build(item, f"{path}.{i}".lstrip("."), depth + 1) for i, item in enumerate(node.value)]
        return _scalar(node, line)

    def _mapping(self, node: Any, path: str, depth: int) -> dict[str, Any]:
        if node.tag != _STANDARD + "map":
            raise InvalidJobFile(
                f"line {node.start_mark.line + 1}: the tag {node.tag[:40]} is not allowed", "remove it"
            )
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InvalidJobFile(f"line {line}: a key is not text", "write `name: value`")
            key = str(key_node.value)
            if key in found:
                raise InvalidJobFile(f"line {line}: {key!r} stands twice", "keep one of them")
            inner = f"{path}.{key}".lstrip(".")
            self.lines[inner] = line
            found[key] = self.build(value_node, inner, depth + 1)
        return found


def _scalar(node: Any, line: int) -> Any:
    text = str(node.value)
    if node.style or node.tag == "!":  # a plain scalar has the style None, or "" from the C loader
        return text
    if not node.tag.startswith(_STANDARD):
        raise InvalidJobFile(f"line {line}: the tag {node.tag[:40]} is not allowed", "remove the tag")
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.match(text) and len(text) <= 40:
        return int(text)
    return text
