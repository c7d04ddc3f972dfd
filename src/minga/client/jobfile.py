"""Job files: YAML with SkyPilot's words where they fit, and what a job is in the end (`JobSpec`).

| field                  | meaning                                                                       |
|------------------------|-------------------------------------------------------------------------------|
| name                   | for people                                                                    |
| resources              | accelerators, vram, cpus, memory, disk (disk_size), ports, region             |
| workdir, file_mounts   | folders sent along; mounts as `/target: local/path`                           |
| setup, run             | shell text; setup is free time                                                |
| envs, secrets          | values of variables; secrets are sealed to one provider                       |
| outputs                | globs under the workdir, besides everything in `$MINGA_OUTPUT_DIR`            |
| checkpoint             | true, or `{to, endpoint, every}`: `$MINGA_CHECKPOINT_DIR` is kept and restored |
| accept                 | command, or `{run, every, timeout}`: the tenant's check of each checkpoint    |
| budget                 | dollars: `2`, or `{total: 2, per_hour: 0.5}`                                  |
| max_idle               | stop after so long without progress                                           |
| duration               | what the work takes, for quotes                                               |
| probe                  | false: a machine need not show that it is what was sold                       |
| close_window           | how long a vanished provider may lock a deposit (1h)                          |
| setup_wait             | how long set-up may take (30m)                                                |
| deadline, grace        | duration from the order; seconds that a stopped job gets to checkpoint        |
| retry                  | `{attempts, failures, wait}`: leases, own failures, waiting for an offer      |
| egress                 | hosts that must be reachable; left out: what the provider's terms allow       |
| environment            | `python`, or another that a provider names                                    |
| verify                 | mode, or `{class, mode, hold, every, keep}`: the work can be checked by others |

A SkyPilot task of one node runs as it is. Its fields that do no harm here give a warning each; those whose absence
would change what the job does are refused. Rule: nothing is ignored in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from minga.client.jobfields import HARMLESS, REFUSED, FieldReader
from minga.client.jobspec import ACCEPT_TIMEOUT_S, HOLD_BPS, NO_VERIFY, SETUP_WAIT_S, Accept, JobSpec, Retry, Verify
from minga.client.verified import check_verified
from minga.client.yamltree import Tree, parse
from minga.core.errors import InvalidInput, InvalidJobFile, NotFound, TooLarge
from minga.core.spec import ENVS_MAX, OUTPUTS_MAX, safe_relative
from minga.core.units import parse_cpus, parse_size, parse_usd
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.lease import CLOSE_WINDOW_MIN
from minga.protocol.matching import CLOSE_WINDOW_MAX, Requirements

FILE_BYTES_MAX = 1 << 18
IDLE_MIN_S = 10

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


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


class _Reader(FieldReader):
    """Takes the fields of one file, one by one; what is left at the end is unknown."""

    def __init__(self, tree: Tree, folder: Path, envs: dict[str, str], secrets: dict[str, str]) -> None:
        super().__init__(tree)
        self.folder = folder
        self.given = {"envs": envs, "secrets": secrets}

    def read(self) -> Loaded:
        fields = dict(self.tree.value)
        self.sort_out(fields, "")
        nodes = fields.pop("num_nodes", None)
        if nodes not in (None, 1):
            self.fail("num_nodes", f"{nodes!r} nodes", "one job runs on one machine; submit several jobs")
        envs, secrets = self._variables(fields, "envs"), self._variables(fields, "secrets")
        resources = self.mapping(fields, "resources")
        ports = self._ports(resources)
        egress = self._hosts(fields)
        spec = JobSpec(
            run=self.text(fields, "run", 65536) or self.fail("run", "there is nothing to run", "write `run: …`"),
            name=self.text(fields, "name", 128) or "job",
            environment=self.text(fields, "environment", 128) or "python",
            setup=self.text(fields, "setup", 65536),
            envs=envs,
            secrets=secrets,
            ports=ports,
            egress=egress,
            workdir=self._workdir(fields, envs),
            file_mounts=self._mounts(fields, envs),
            outputs=self._outputs(fields),
            deadline_s=self.duration(fields, "deadline"),
            retry=self._retry(fields),
            grace_s=self.duration(fields, "grace") or 30,
            duration_s=self.duration(fields, "duration", least=1),
            max_idle_s=self.duration(fields, "max_idle", least=IDLE_MIN_S),
            probe=self.flag(fields, "probe", True),
            close_window_s=self.duration(fields, "close_window", least=CLOSE_WINDOW_MIN) or CLOSE_WINDOW_MAX,
            setup_wait_s=self.duration(fields, "setup_wait", least=1) or SETUP_WAIT_S,
            verify=self._verify(fields),
        )
        spec = self._money(fields, self._checkpoint(fields, spec))
        spec = replace(spec, accept=self._accept(fields, spec))
        self.convert("verify", check_verified, spec)
        spec = replace(spec, requirements=self._requirements(resources, spec))
        for name in fields:
            self.fail(name, "unknown field", f"fields are {', '.join(sorted(KNOWN))}")
        for name in resources:
            self.fail(f"resources.{name}", "unknown field", "see the job file reference")
        return Loaded(spec, tuple(self.warnings))

    # ----------------------------------------------------------------------------------------------------- values

    def _variables(self, fields: dict[str, Any], name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in self.mapping(fields, name).items():
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
        for target, source in self.mapping(fields, "file_mounts").items():
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

    # -------------------------------------------------------------------------------------------------- checkpoints

    def _checkpoint(self, fields: dict[str, Any], spec: JobSpec) -> JobSpec:
        value = fields.pop("checkpoint", None)
        if value is None or isinstance(value, bool):
            return replace(spec, checkpoint=bool(value))
        if not isinstance(value, dict):
            self.fail("checkpoint", "neither true, false nor {to, endpoint, every}", "write `checkpoint: true`")
        parts = dict(value)
        found = replace(
            spec,
            checkpoint=True,
            checkpoint_to=self.text(parts, "to", 1024, "checkpoint.to"),
            checkpoint_endpoint=self.text(parts, "endpoint", 1024, "checkpoint.endpoint"),
            checkpoint_every_s=self.duration(parts, "every", "checkpoint.every", 1),
        )
        self.all_known(parts, "checkpoint", "{to: s3://bucket/prefix, endpoint: https://…, every: 5m}")
        if found.checkpoint_endpoint and not found.checkpoint_to:
            self.fail("checkpoint.endpoint", "there is no bucket to reach there", "write `to: s3://bucket/prefix` too")
        if found.checkpoint_to:
            from minga.client.checkpoints import check_destination  # what reads job files need not know of buckets

            where = found.checkpoint_endpoint
            self.convert("checkpoint.to", lambda to: check_destination(to, where), found.checkpoint_to)
        return found

    def _accept(self, fields: dict[str, Any], spec: JobSpec) -> Accept | None:
        value = fields.pop("accept", None)
        if value is None:
            return None
        parts = dict(value) if isinstance(value, dict) else {"run": value}
        every, timeout = (self.duration(parts, name, f"accept.{name}", 1) for name in ("every", "timeout"))
        run = self.text(parts, "run", 65536, "accept")
        self.all_known(parts, "accept", "{run: python check.py, every: 10m, timeout: 2m}")
        if not run.strip():
            self.fail("accept", "there is no command", "write `accept: python check.py`")
        if not spec.checkpoint:
            self.fail("accept", "there are no checkpoints to check", "write `checkpoint: true` too")
        return Accept(run, self.folder, every or spec.checkpoint_every_s or 0, timeout or ACCEPT_TIMEOUT_S)

    def _verify(self, fields: dict[str, Any]) -> Verify:
        value = fields.pop("verify", None)
        if value is None:
            return NO_VERIFY
        parts = dict(value) if isinstance(value, dict) else {"mode": value}
        found = Verify(
            mode=self.one_of(parts, "mode", "verify.mode", ("none", "audit", "replicate")),  # type: ignore[arg-type]
            determinism=self.one_of(parts, "class", "verify.class", ("D0", "D1", "D2")),  # type: ignore[arg-type]
            hold_bps=self.percent(parts, "hold", "verify.hold", HOLD_BPS),
            every=self.count(parts, "every", "verify.every", 1, 1, 1_000_000),
            keep=self.count(parts, "keep", "verify.keep", 50, 1, 1_000_000),
        )
        self.all_known(parts, "verify", "{class: D0, mode: audit, hold: 10%, every: 1, keep: 50}")
        return found

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
            close_window_max=spec.close_window_s,
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
        self.all_known(parts, "budget", "{total: 2, per_hour: 0.5}")
        for name, amount in (("total", total), ("per_hour", per_hour)):
            if amount is not None:
                self.convert("budget" if not isinstance(value, dict) else f"budget.{name}", _dollars, amount)
        return replace(spec, budget=_or_none(total), per_hour=_or_none(per_hour))

    def _retry(self, fields: dict[str, Any]) -> Retry:
        parts = self.mapping(fields, "retry")
        wait = self.duration(parts, "wait", "retry.wait")
        found = Retry(
            attempts=self.count(parts, "attempts", "retry.attempts", 32, 1),
            failures=self.count(parts, "failures", "retry.failures", 0, 0),
            wait_s=600 if wait is None else wait,
        )
        self.all_known(parts, "retry", "{attempts: 5, failures: 1, wait: 10m}")
        return found


KNOWN = (
    "name", "resources", "workdir", "file_mounts", "setup", "run", "envs", "secrets", "outputs", "checkpoint", "budget",
    "deadline", "retry", "egress", "environment", "grace", "num_nodes", "duration", "max_idle", "accept", "probe",
    "close_window", "setup_wait", "verify",
)  # fmt: skip
"""Fields of a job file."""


def _dollars(value: Any) -> int:
    return int(parse_usd(value, 18))


def _or_none(value: Any) -> str | None:
    return None if value is None else str(value).strip()


__all__ = ["HARMLESS", "KNOWN", "REFUSED", "JobSpec", "Loaded", "Retry", "load_job_file", "parse_job"]
