"""Taking fields out of a job file one by one, with the line in every error. What the fields mean is `jobfile`'s.

Rule: what is wrong is an `InvalidJobFile` whose fact begins with `line N: field:`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from minga.client.yamltree import Tree
from minga.core.errors import InvalidJobFile, MingaError
from minga.core.units import parse_duration, parse_percent

HARMLESS = {
    "": ("config", "event_callback", "experimental", "inputs", "priority", "_metadata", "_policy_mutated_config"),
    "resources": (
        "cloud", "infra", "zone", "use_spot", "instance_type", "disk_tier", "network_tier", "labels", "autostop",
        "accelerator_args", "job_recovery", "spot_recovery", "priority", "_cluster_config_overrides", "local_disk",
    ),
}  # fmt: skip
"""SkyPilot's fields that have no meaning here and whose absence changes nothing that a job computes."""

REFUSED = {
    "service": "serving is not a job; run the server with `ports`",
    "pool": "there are no pools; submit jobs",
    "volumes": "mount local folders with file_mounts",
    "resources.image_id": "choose an `environment` that providers offer",
    "resources.any_of": "list alternatives under accelerators",
    "resources.ordered": "list alternatives under accelerators",
    "resources.volumes": "mount local folders with file_mounts",
}
"""Fields that would change what the job does, and what to write instead."""


class FieldReader:
    """Takes values out of mappings of one file; each method removes the field that it reads."""

    def __init__(self, tree: Tree) -> None:
        """`tree` gives the lines."""
        self.tree = tree
        self.warnings: list[str] = []

    def fail(self, path: str, what: str, remedy: str = "") -> NoReturn:
        """Refuse the file for its field `path`."""
        line = self.tree.lines.get(path) or self.tree.lines.get(path.rpartition(".")[0], 1)
        raise InvalidJobFile(f"line {line}: {path}: {what}", remedy or "see the job file reference")

    def convert(self, path: str, make: Callable[[Any], Any], value: Any) -> Any:
        """`make(value)`; an error of ours becomes the field's."""
        try:
            return make(value)
        except MingaError as error:
            self.fail(path, error.fact, error.remedy)

    def sort_out(self, fields: dict[str, Any], prefix: str) -> None:
        """Refuse what would change the job, warn about what is without meaning here."""
        for name in list(fields):
            path = f"{prefix}.{name}".lstrip(".")
            if path in REFUSED and fields[name] is not None:
                self.fail(path, "not supported", REFUSED[path])
            if name in HARMLESS[prefix] or (path in REFUSED and fields[name] is None):
                value = fields.pop(name)
                if value is not None:
                    self.warnings.append(f"line {self.tree.lines.get(path, 1)}: {path} has no meaning here")

    def all_known(self, parts: dict[str, Any], name: str, example: str) -> None:
        """Refuse what is left in the mapping of field `name`."""
        for part in parts:
            self.fail(f"{name}.{part}", "unknown field", f"write {example}")

    def text(self, fields: dict[str, Any], name: str, limit: int, path: str = "") -> str:
        """Text of at most `limit` characters; empty when left out."""
        value = fields.pop(name, None)
        path = path or name
        if value is None:
            return ""
        if not isinstance(value, str | int) or isinstance(value, bool):
            self.fail(path, f"{type(value).__name__} instead of text", "write text")
        if len(str(value)) > limit or "\0" in str(value):
            self.fail(path, f"over {limit} characters, or with a NUL", "write less")
        return str(value).strip("\n") if name == "name" else str(value)

    def mapping(self, fields: dict[str, Any], name: str) -> dict[str, Any]:
        """A mapping, copied; empty when left out."""
        value = fields.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(name, f"{type(value).__name__} instead of a mapping", "write `name: value` lines")
        found = dict(value)
        if name in HARMLESS:
            self.sort_out(found, name)
        return found

    def duration(self, fields: dict[str, Any], name: str, path: str = "", least: int = 0) -> int | None:
        """Seconds, at least `least`; None when left out."""
        value = fields.pop(name, None)
        if value is None:
            return None
        seconds = int(self.convert(path or name, parse_duration, value))
        if seconds < least:
            self.fail(path or name, f"{seconds} s is too short", f"at least {least} s")
        return seconds

    def flag(self, fields: dict[str, Any], name: str, default: bool) -> bool:
        """True or false."""
        value = fields.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(name, "neither true nor false", f"write `{name}: {str(not default).lower()}`")
        return value

    def count(self, parts: dict[str, Any], name: str, path: str, default: int, least: int, most: int = 1000) -> int:
        """A whole number, `least` … `most`."""
        value = parts.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fail(path, f"{value!r} is not a whole number, {least} … {most}", "write a number")
        return value

    def percent(self, parts: dict[str, Any], name: str, path: str, default: int) -> int:
        """Basis points of a per cent text such as `10%`."""
        value = parts.pop(name, None)
        return default if value is None else int(self.convert(path, parse_percent, value))

    def one_of(self, parts: dict[str, Any], name: str, path: str, known: tuple[str, ...]) -> str:
        """One of the words `known`; the first when left out."""
        value = parts.pop(name, None)
        if value is None:
            return known[0]
        if value not in known:
            self.fail(path, f"{str(value)[:40]!r} is none of {', '.join(known)}", f"write {known[0]}")
        return str(value)
