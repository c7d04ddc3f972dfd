"""From flags to a job: one path of validation, the job file's.

Flags are written as the job file that says the same and parsed as one, so that a flag means what its field means and
its errors are the field's. With a job file, what the flags say replaces what the file says.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minga.cli.output import tell
from minga.core.errors import InvalidInput, InvalidJobFile, UnsafePath

if TYPE_CHECKING:
    from minga.client.jobfile import JobSpec

JOB_FILES = (".yaml", ".yml")


@dataclass(frozen=True)
class Wishes:
    """What the flags said; None, empty and false say nothing. `workdir` None means the current folder if there is no
    job file and `send_folder`.
    """

    name: str | None = None
    gpu: str | None = None
    cpus: str | None = None
    memory: str | None = None
    disk: str | None = None
    region: str | None = None
    budget: str | None = None
    max_price: str | None = None
    deadline: str | None = None
    max_idle: str | None = None
    duration: str | None = None
    probe: bool = True
    verify: str | None = None
    workdir: str | None = None
    send_folder: bool = True
    envs: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    checkpoint: bool = False

    def as_fields(self) -> dict[str, Any]:
        """The fields of a job file that say the same."""
        resources = {
            "accelerators": self.gpu,
            "cpus": self.cpus,
            "memory": self.memory,
            "disk": self.disk,
            "region": self.region,
        }
        budget = {"total": self.budget, "per_hour": self.max_price}
        found: dict[str, Any] = {
            "name": self.name,
            "resources": {name: value for name, value in resources.items() if value is not None},
            "budget": {name: value for name, value in budget.items() if value is not None},
            "deadline": self.deadline,
            "max_idle": self.max_idle,
            "duration": self.duration,
            "verify": self.verify,
            "workdir": self.workdir,
            "outputs": list(self.outputs),
            "checkpoint": self.checkpoint,
        }
        said = {name: value for name, value in found.items() if value}
        return said if self.probe else {**said, "probe": False}


def build_spec(target: Sequence[str], wishes: Wishes, folder: Path) -> JobSpec:
    """The job that the words and flags of a command line ask for; warnings go to stderr.

    Args:
        target: a job file alone, or the words of a command (one word is shell text).
        wishes: the flags.
        folder: the current folder.

    Raises:
        InvalidInput: no target, a job file and more words, or a flag that is wrong.
        InvalidJobFile, TooLarge: the file is not one; see `minga.client.jobfile`.
        UnsafePath: a command without --workdir in the home or root folder.
    """
    if not target:
        raise InvalidInput("nothing to run", "name a job file, or write the command after `--`")
    if target[0].endswith(JOB_FILES):
        if len(target) > 1:
            raise InvalidInput(f"{target[0]} is a job file, and more words follow", "give a job file, or a command")
        return _from_file(Path(target[0]), wishes, folder)
    return _from_command(target, wishes, folder)


def _from_command(target: Sequence[str], wishes: Wishes, folder: Path) -> JobSpec:
    if wishes.send_folder and wishes.workdir is None:
        if folder in (Path(folder.anchor), Path.home()):
            raise UnsafePath(
                f"{folder} would be sent to a stranger", "name a folder with --workdir, or use --no-workdir"
            )
        wishes = replace(wishes, workdir=".")
    text = target[0] if len(target) == 1 else shlex.join(target)
    return _said({"run": text, **wishes.as_fields()}, folder, wishes.envs, wishes.secrets)


def _from_file(path: Path, wishes: Wishes, folder: Path) -> JobSpec:
    from minga.client.jobfile import load_job_file

    spec = _parsed(load_job_file(path, wishes.envs, wishes.secrets))
    said = wishes.as_fields()
    if not wishes.send_folder:
        spec = replace(spec, workdir=None)
    if not said:
        return spec
    merged: JobSpec = _overlaid(spec, _said({"run": "true", **said}, folder), _said({"run": "true"}, folder))
    return merged


def _said(
    body: dict[str, Any], folder: Path, envs: dict[str, str] | None = None, secrets: dict[str, str] | None = None
) -> JobSpec:
    """The job that flags describe, written as a job file's fields."""
    from minga.client.jobfile import parse_job

    try:
        return _parsed(parse_job(json.dumps(body), folder, envs or {}, secrets or {}))
    except InvalidJobFile as error:
        raise InvalidInput(error.fact.removeprefix("line 1: "), error.remedy) from None


def _overlaid(spec: Any, flags: Any, plain: Any) -> Any:
    """`spec` with every field in which `flags` differs from `plain`, the job that says nothing."""
    changes: dict[str, Any] = {}
    for item in fields(plain):
        said, nothing = getattr(flags, item.name), getattr(plain, item.name)
        if said == nothing:
            continue
        own = getattr(spec, item.name)
        changes[item.name] = _overlaid(own, said, nothing) if hasattr(said, "__dataclass_fields__") else said
    return replace(spec, **changes)


def _parsed(loaded: Any) -> JobSpec:
    for warning in loaded.warnings:
        tell(f"warning: {warning}")
    return loaded.spec  # type: ignore[no-any-return]
