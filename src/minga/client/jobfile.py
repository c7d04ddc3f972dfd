"""Job files: YAML with SkyPilot's words where they fit, and what a job is in the end (`JobSpec`).

| field                  | meaning                                                                       |
|------------------------|-------------------------------------------------------------------------------|
| name                   | for people                                                                    |
| resources              | accelerators, vram, cpus, memory, disk (disk_size), ports, region             |
| workdir, file_mounts   | folders sent along; mounts as `/target: local/path`                           |
| setup, run             | shell text; setup is free time                                                |
| envs, secrets          | values of variables; secrets are sealed to one provider                       |
| outputs                | globs under the workdir, besides everything in `$MINGA_OUTPUT_DIR`            |
| checkpoint             | true: `$MINGA_CHECKPOINT_DIR` is kept and restored                            |
| budget                 | dollars: `2`, or `{total: 2, per_hour: 0.5}`                                  |
| deadline, grace        | duration from the order; seconds that a stopped job gets to checkpoint        |
| retry                  | `{attempts, failures, wait}`: leases, own failures, waiting for an offer      |
| egress                 | hosts that must be reachable; left out: what the provider's terms allow       |
| environment            | `python`, or another that a provider names                                    |

A SkyPilot task of one node runs as it is. Its fields that do no harm here give a warning each; those whose absence
would change what the job does are refused. Rule: nothing is ignored in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from minga.client.yamltree import Tree, parse
from minga.core.errors import InvalidInput, InvalidJobFile, MingaError, NotFound, TooLarge
from minga.core.spec import ENVS_MAX, OUTPUTS_MAX, safe_relative
from minga.core.units import parse_cpus, parse_duration, parse_size, parse_usd
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.matching import Requirements

FILE_BYTES_MAX = 1 << 18

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")

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


NO_NEEDS = Requirements()


@dataclass(frozen=True)
class Retry:
    """`attempts`: leases at most; `failures`: how often the job's own failure is tried again; `wait_s`: for offers."""

    attempts: int = 32
    failures: int = 0
    wait_s: int = 600


RETRY = Retry()


@dataclass(frozen=True)
class JobSpec:
    """What to run, on what, for how much. Dollars are text (exact); sizes bytes, times seconds; paths are local.

    `egress` None takes whatever the provider's terms allow; `secrets` never leave this object except sealed.
    """

    run: str
    name: str = "job"
    requirements: Requirements = NO_NEEDS
    workdir: Path | None = None
    file_mounts: Mapping[str, Path] = field(default_factory=dict)
    setup: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    outputs: tuple[str, ...] = ()
    checkpoint: bool = False
    budget: str | None = None
    per_hour: str | None = None
    deadline_s: int | None = None
    retry: Retry = RETRY
    ports: tuple[int, ...] = ()
    egress: tuple[str, ...] | None = None
    environment: str = "python"
    grace_s: int = 30


@dataclass(frozen=True)
class Loaded:
    """A job file as a spec, and a line for each field that was left out of it."""

    spec: JobSpec
    warnings: tuple[str, ...] = ()


def load_job_file(
    path: Path, envs: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
) -> Loaded:
    """Read a job file; relative paths in it count from its folder.

    Args:
        path: the file.
        envs: values that win over the file's `envs`, and fill those left empty.
        secrets: likewise for `secrets`.

    Raises:
        NotFound: no such file.
        TooLarge: over 256 KiB.
        InvalidJobFile: the fact names the field and its line.
    """
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise TooLarge(f"{path.name} is over {FILE_BYTES_MAX} bytes", "a job file is short")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidJobFile(f"{path.name} is not UTF-8 text", "write UTF-8 YAML") from None
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}", "check the path") from None
    return parse_job(text, path.resolve().parent, envs or {}, secrets or {})


def parse_job(
    text: str, folder: Path, envs: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
) -> Loaded:
    """A spec from YAML text; errors as `load_job_file`."""
    tree = parse(text)
    if not isinstance(tree.value, dict):
        raise InvalidJobFile("the job file is not a mapping of fields", "write `run: python train.py`")
    return _Reader(tree, folder, dict(envs or {}), dict(secrets or {})).read()


class _Reader:
    """Takes the fields of one file, one by one; what is left at the end is unknown."""

    def __init__(self, tree: Tree, folder: Path, envs: dict[str, str], secrets: dict[str, str]) -> None:
        self.tree, self.folder = tree, folder
        self.given = {"envs": envs, "secrets": secrets}
        self.warnings: list[str] = []

    def fail(self, path: str, what: str, remedy: str = "") -> NoReturn:
        line = self.tree.lines.get(path) or self.tree.lines.get(path.rpartition(".")[0], 1)
        raise InvalidJobFile(f"line {line}: {path}: {what}", remedy or "see the job file reference")

    def convert(self, path: str, make: Callable[[Any], Any], value: Any) -> Any:
        try:
            return make(value)
        except MingaError as error:
            self.fail(path, error.fact, error.remedy)

    def read(self) -> Loaded:
        fields = dict(self.tree.value)
        self._sort_out(fields, "")
        nodes = fields.pop("num_nodes", None)
        if nodes not in (None, 1):
            self.fail("num_nodes", f"{nodes!r} nodes", "one job runs on one machine; submit several jobs")
        envs, secrets = self._variables(fields, "envs"), self._variables(fields, "secrets")
        resources = self._mapping(fields, "resources")
        ports = self._ports(resources)
        egress = self._hosts(fields)
        spec = JobSpec(
            run=self._text(fields, "run", 65536) or self.fail("run", "there is nothing to run", "write `run: …`"),
            name=self._text(fields, "name", 128) or "job",
            environment=self._text(fields, "environment", 128) or "python",
            setup=self._text(fields, "setup", 65536),
            envs=envs,
            secrets=secrets,
            ports=ports,
            egress=egress,
            workdir=self._workdir(fields, envs),
            file_mounts=self._mounts(fields, envs),
            outputs=self._outputs(fields),
            checkpoint=self._checkpoint(fields),
            deadline_s=self._duration(fields, "deadline"),
            retry=self._retry(fields),
            grace_s=self._duration(fields, "grace") or 30,
        )
        spec = self._money(fields, spec)
        spec = replace(spec, requirements=self._requirements(resources, spec))
        for name in fields:
            self.fail(name, "unknown field", f"fields are {', '.join(sorted(KNOWN))}")
        for name in resources:
            self.fail(f"resources.{name}", "unknown field", "see the job file reference")
        return Loaded(spec, tuple(self.warnings))

    def _sort_out(self, fields: dict[str, Any], prefix: str) -> None:
        """Refuse what would change the job, warn about what is without meaning here."""
        for name in list(fields):
            path = f"{prefix}.{name}".lstrip(".")
            if path in REFUSED and fields[name] is not None:
                self.fail(path, "not supported", REFUSED[path])
            if name in HARMLESS[prefix] or (path in REFUSED and fields[name] is None):
                value = fields.pop(name)
                if value is not None:
                    self.warnings.append(f"line {self.tree.lines.get(path, 1)}: {path} has no meaning here")

    # ----------------------------------------------------------------------------------------------------- values

    def _text(self, fields: dict[str, Any], name: str, limit: int) -> str:
        value = fields.pop(name, None)
        if value is None:
            return ""
        if not isinstance(value, str | int) or isinstance(value, bool):
            self.fail(name, f"{type(value).__name__} instead of text", "write text")
        if len(str(value)) > limit or "\0" in str(value):
            self.fail(name, f"over {limit} characters, or with a NUL", "write less")
        return str(value).strip("\n") if name == "name" else str(value)

    def _mapping(self, fields: dict[str, Any], name: str) -> dict[str, Any]:
        value = fields.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(name, f"{type(value).__name__} instead of a mapping", "write `name: value` lines")
        found = dict(value)
        if name in HARMLESS:
            self._sort_out(found, name)
        return found

    def _duration(self, fields: dict[str, Any], name: str) -> int | None:
        value = fields.pop(name, None)
        return None if value is None else int(self.convert(name, parse_duration, value))

    def _variables(self, fields: dict[str, Any], name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in self._mapping(fields, name).items():
            if not _ENV_NAME.match(key):
                self.fail(f"{name}.{key}", "not a variable's name", "use letters, digits and _")
            if isinstance(value, dict | list):
                self.fail(f"{name}.{key}", "not a plain value", "write text")
            if value is None and key not in self.given[name]:
                option = "--secret" if name == "secrets" else "--env"
                self.fail(f"{name}.{key}", "has no value", f"give it with {option} {key}=…")
            found[key] = "" if value is None else str(value)
        found |= self.given[name]
        if len(found) > ENVS_MAX:
            self.fail(name, f"{len(found)} variables", f"at most {ENVS_MAX}")
        return found

    # ------------------------------------------------------------------------------------------------------- files

    def _workdir(self, fields: dict[str, Any], envs: dict[str, str]) -> Path | None:
        value = fields.pop("workdir", None)
        if value is None:
            return None
        if not isinstance(value, str):
            self.fail(
                "workdir", "not a local folder", "git repositories are not fetched; clone it, then name the folder"
            )
        return self._local("workdir", value, envs)

    def _local(self, path: str, value: str, envs: dict[str, str]) -> Path:
        text = _VARIABLE.sub(lambda found: envs.get(found[1] or found[2], found[0]), value)
        if "://" in text:
            self.fail(
                path, f"{text[:60]!r} is not a local path", "buckets are not mounted yet; sync it to a folder first"
            )
        local = Path(text).expanduser()
        local = local if local.is_absolute() else self.folder / local
        if not local.exists():
            self.fail(path, f"{local} is not there", "paths count from the job file's folder")
        return local

    def _mounts(self, fields: dict[str, Any], envs: dict[str, str]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for target, source in self._mapping(fields, "file_mounts").items():
            path = f"file_mounts.{target}"
            if not isinstance(source, str):
                self.fail(path, "not a local path", "buckets are not mounted; sync it to a folder first")
            found[self._target(path, target, envs)] = self._local(path, source, envs)
        if len(found) > 60:
            self.fail("file_mounts", f"{len(found)} mounts", "at most 60")
        return found

    def _target(self, path: str, target: str, envs: dict[str, str]) -> str:
        text = _VARIABLE.sub(lambda found: envs.get(found[1] or found[2], found[0]), target)
        if text == "~" or text.startswith("~/"):
            text = "/job/home" + text[1:]
        absolute = PurePosixPath("/job/work") / text
        if ".." in absolute.parts or "\\" in text or any(ord(char) < 32 for char in text) or str(absolute) == "/":
            self.fail(path, "not a plain path inside the job", "use an absolute path such as /data")
        return str(absolute)

    def _outputs(self, fields: dict[str, Any]) -> tuple[str, ...]:
        value = fields.pop("outputs", None) or []
        items = [value] if isinstance(value, str) else value
        if isinstance(items, dict):
            self.warnings.append(
                f"line {self.tree.lines.get('outputs', 1)}: outputs is an estimate of SkyPilot's, unused"
            )
            return ()
        if not isinstance(items, list) or len(items) > OUTPUTS_MAX or not all(isinstance(item, str) for item in items):
            self.fail("outputs", f"not a list of at most {OUTPUTS_MAX} globs", "write `outputs: [models/*.pt]`")
        return tuple(self.convert(f"outputs.{i}", safe_relative, item) for i, item in enumerate(items))

    def _checkpoint(self, fields: dict[str, Any]) -> bool:
        value = fields.pop("checkpoint", None)
        if value is not None and not isinstance(value, bool):
            self.fail("checkpoint", "neither true nor false", "write `checkpoint: true` and use $MINGA_CHECKPOINT_DIR")
        return bool(value)

    # --------------------------------------------------------------------------------------------------- resources

    def _ports(self, resources: dict[str, Any]) -> tuple[int, ...]:
        value = resources.pop("ports", None)
        found: list[int] = []
        for item in [] if value is None else value if isinstance(value, list) else [value]:
            first, _, last = str(item).partition("-")
            if not (first.isascii() and first.isdigit() and (last or first).isascii() and (last or first).isdigit()):
                self.fail("resources.ports", f"{str(item)[:40]!r} is not a port", "write 8080 or 8080-8083")
            low, high = int(first[:6]), int((last or first)[:6])
            if not 1 <= low <= high <= 65535 or len(found) + high - low > 63:
                self.fail("resources.ports", f"{str(item)[:40]!r} is out of range", "use at most 64 ports, 1 … 65535")
            found += range(low, high + 1)
        return tuple(found)

    def _hosts(self, fields: dict[str, Any]) -> tuple[str, ...] | None:
        value = fields.pop("egress", None)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        if len(items) > 256 or not all(isinstance(item, str) and 0 < len(item) <= 128 for item in items):
            self.fail("egress", "not a list of at most 256 host names", "write `egress: [packages.example.org]`")
        return tuple(items)

    def _requirements(self, resources: dict[str, Any], spec: JobSpec) -> Requirements:
        take = resources.pop

        def size(name: str) -> int:
            value = take(name, None)
            return 0 if value is None else int(self.convert(f"resources.{name}", parse_size, value))

        names = [name for name in ("disk", "disk_size") if name in resources]
        if len(names) > 1:
            self.fail("resources.disk_size", "disk stands there too", "keep one of them")
        region = take("region", None)
        cpus = take("cpus", None)
        return Requirements(
            gpus=self.convert("resources.accelerators", parse_accelerators, take("accelerators", None)),
            vram_bytes=size("vram"),
            cpu_milli=0 if cpus is None else self._cpus(cpus),
            memory_bytes=size("memory"),
            disk_bytes=size(names[0]) if names else 0,
            region="" if region is None else str(region)[:64],
            egress=spec.egress or (),
            ports=len(spec.ports),
            environment=spec.environment,
        )

    def _cpus(self, value: Any) -> int:
        try:
            return parse_cpus(value)
        except InvalidInput as error:
            self.fail("resources.cpus", error.fact, error.remedy)

    # ------------------------------------------------------------------------------------------------------- money

    def _money(self, fields: dict[str, Any], spec: JobSpec) -> JobSpec:
        value = fields.pop("budget", None)
        if value is None:
            return spec
        parts = dict(value) if isinstance(value, dict) else {"total": value}
        total, per_hour = parts.pop("total", None), parts.pop("per_hour", None)
        for name in parts:
            self.fail(f"budget.{name}", "unknown field", "write {total: 2, per_hour: 0.5}")
        for name, amount in (("total", total), ("per_hour", per_hour)):
            if amount is not None:
                self.convert("budget" if not isinstance(value, dict) else f"budget.{name}", _dollars, amount)
        return replace(spec, budget=_or_none(total), per_hour=_or_none(per_hour))

    def _retry(self, fields: dict[str, Any]) -> Retry:
        parts = self._mapping(fields, "retry")
        wait = parts.pop("wait", None)
        found = Retry(
            attempts=self._count(parts, "attempts", 32, 1),
            failures=self._count(parts, "failures", 0, 0),
            wait_s=600 if wait is None else int(self.convert("retry.wait", parse_duration, wait)),
        )
        for name in parts:
            self.fail(f"retry.{name}", "unknown field", "write {attempts: 5, failures: 1, wait: 10m}")
        return found

    def _count(self, parts: dict[str, Any], name: str, default: int, least: int) -> int:
        value = parts.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1000:
            self.fail(f"retry.{name}", f"{value!r} is not a whole number, {least} … 1000", "write a number")
        return value


KNOWN = (
    "name", "resources", "workdir", "file_mounts", "setup", "run", "envs", "secrets", "outputs", "checkpoint", "budget",
    "deadline", "retry", "egress", "environment", "grace", "num_nodes",
)  # fmt: skip
"""Fields of a job file."""


def _dollars(value: Any) -> int:
    return int(parse_usd(value, 18))


def _or_none(value: Any) -> str | None:
    return None if value is None else str(value).strip()
