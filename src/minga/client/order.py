"""An order: everything about a job that is fixed when it is submitted, as it stands in the journal.

The plan (money and times), what is needed of a machine, and what to run, with the inputs by hash. Secrets are not in
it: they lie in a file of their own until the job is settled. Pure; the manifest of each attempt is made from it here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from minga.client.jobspec import JobSpec
from minga.client.verified import check_verified, is_verified, trace_of, variables
from minga.core.errors import BudgetTooSmall, InternalError, InvalidInput
from minga.core.spec import Bundle, Manifest, Terms, UnitSize
from minga.core.units import GIB, parse_usd
from minga.protocol.accelerators import Accelerator, GpuWish
from minga.protocol.job_events import Plan, plan_from_json, plan_to_json
from minga.protocol.matching import SANDBOXED, Requirements

WORKDIR = "/job/work"


@dataclass(frozen=True)
class Court:
    """Who decides about verified work: the contract's address, and for how many seconds work can be challenged."""

    arbiter: str
    window_s: int


DISK_BYTES = 16 * GIB


@dataclass(frozen=True)
class Order:
    """A job as it was ordered. `main` is the address that pays and gets the rest back; `inputs` are `Bundle` values;
    events of the chain before `start_block` cannot be about this job. `store` says where checkpoints go (`to`,
    `endpoint`; empty: this disk), `accept` how they are checked (`run`, `folder`, `timeout_s`), `estimate` what the
    tenant said for quotes. `verify` says how the work is verified (`mode`, and `trace` as `core.work.Trace`), None when
    it is not.
    """

    name: str
    network: str
    main: str
    submitted_at: int
    start_block: int
    plan: Plan
    needs: Requirements
    task: dict[str, Any]
    inputs: tuple[dict[str, Any], ...]
    store: dict[str, str] = field(default_factory=dict)
    accept: dict[str, Any] | None = None
    estimate: dict[str, int] = field(default_factory=dict)
    verify: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The journal's record."""
        needs = asdict(self.needs)
        needs["gpus"] = [[wish.name.model, wish.name.memory_gb, wish.name.form, wish.count] for wish in self.needs.gpus]
        needs["excluded"] = sorted(self.needs.excluded)
        price = self.needs.price_per_hour_max
        needs["price_per_hour_max"] = None if price is None else str(price)
        return {
            "name": self.name,
            "network": self.network,
            "main": self.main,
            "submitted_at": self.submitted_at,
            "start_block": self.start_block,
            "plan": plan_to_json(self.plan),
            "needs": needs,
            "task": self.task,
            "inputs": list(self.inputs),
            "store": self.store,
            "accept": self.accept,
            "estimate": self.estimate,
            "verify": self.verify,
        }

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Order:
        """Read a journal's record.

        Raises:
            InternalError: of another version.
        """
        try:
            needs = {name: _tuple(value) for name, value in body["needs"].items()}
            needs["gpus"] = tuple(GpuWish(Accelerator(m, gb, form), n) for m, gb, form, n in body["needs"]["gpus"])
            needs["excluded"] = frozenset(needs["excluded"])
            price = needs["price_per_hour_max"]
            needs["price_per_hour_max"] = None if price is None else int(price)
            values = {item.name: body[item.name] for item in fields(cls) if item.name in body}
            values |= {"needs": Requirements(**needs), "plan": plan_from_json(body["plan"])}
            values["inputs"] = tuple(body["inputs"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InternalError(
                f"the order of a job cannot be read: {error}"[:200], "use the version that wrote it"
            ) from None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def plan_of(spec: JobSpec, job: str, decimals: int, now: int) -> Plan:
    """The money and times of a job.

    Raises:
        BudgetTooSmall: there is no budget, or it is nothing.
        InvalidInput: an amount that the token cannot express.
    """
    if spec.budget is None:
        raise BudgetTooSmall("the job has no budget", "say what it may cost: --budget 2, or `budget: 2` in the file")
    budget = parse_usd(spec.budget, decimals)
    if budget == 0:
        raise BudgetTooSmall("the budget is zero", "say what the job may cost: --budget 2")
    return Plan(
        job=job,
        budget=budget,
        per_hour=None if spec.per_hour is None else parse_usd(spec.per_hour, decimals),
        deadline=None if spec.deadline_s is None else now + spec.deadline_s,
        failures_max=spec.retry.failures,
        attempts_max=spec.retry.attempts,
        wait_s=spec.retry.wait_s,
        grace_s=spec.grace_s,
        max_idle_s=spec.max_idle_s,
        accept=spec.accept is not None,
        probe=spec.probe,
        setup_wait_s=spec.setup_wait_s,
    )


def order_of(
    spec: JobSpec,
    network: str,
    main: str,
    plan: Plan,
    needs: Requirements,
    inputs: tuple[dict[str, Any], ...],
    now: int,
    start_block: int,
) -> Order:
    """The order of a job whose files are packed."""
    accept = spec.accept
    checked = (
        None if accept is None else {"run": accept.run, "folder": str(accept.folder), "timeout_s": accept.timeout_s}
    )
    store = {"to": spec.checkpoint_to, "endpoint": spec.checkpoint_endpoint} if spec.checkpoint_to else {}
    said = {"duration_s": spec.duration_s, "checkpoint_every_s": spec.checkpoint_every_s}
    return Order(
        name=spec.name, network=network, main=main, submitted_at=now, start_block=start_block,
        plan=replace(plan, input_bytes=sum(int(item["bytes"]) for item in inputs)), needs=needs, task=task_of(spec),
        inputs=inputs, store=store, accept=checked,
        estimate={name: value for name, value in said.items() if value is not None}, verify=_verify_of(spec),
    )  # fmt: skip


def _verify_of(spec: JobSpec) -> dict[str, Any] | None:
    return {"mode": spec.verify.mode, "trace": trace_of(spec.verify).plain()} if is_verified(spec) else None


def needs_of(spec: JobSpec, decimals: int, allow_process: bool, court: Court | None = None) -> Requirements:
    """What is needed of a machine, with the price limit in token units.

    Args:
        spec: the job.
        decimals: of the token.
        allow_process: whether offers without a sandbox will do.
        court: who decides about verified work; a verified job needs one.

    Raises:
        InvalidInput: a verified job that cannot be verified, here or at all.
    """
    check_verified(spec)
    if is_verified(spec) and court is None:
        raise InvalidInput("nobody decides about work on this network", "leave verify out, or use another network")
    held = spec.verify.hold_bps if is_verified(spec) else 0
    price = None if spec.per_hour is None else int(parse_usd(spec.per_hour, decimals))
    sandboxes = (*SANDBOXED, "process") if allow_process else SANDBOXED
    return replace(
        spec.requirements, price_per_hour_max=price, sandboxes=sandboxes, egress=spec.egress or (),
        ports=len(spec.ports), environment=spec.environment, close_window_max=spec.close_window_s,
        quantum_min=spec.accept.every_s if spec.accept else 0, hold_bps_min=held,
        arbiter=court.arbiter if court and held else "", hold_seconds_min=court.window_s if court and held else 0,
    )  # fmt: skip


def task_of(spec: JobSpec) -> dict[str, Any]:
    """What the manifest says of the task, as JSON. A verified job reaches nobody, whatever the terms allow."""
    verified = is_verified(spec)
    return {
        "environment": spec.environment,
        "setup": spec.setup,
        "run": spec.run,
        "envs": variables(spec) if verified else dict(spec.envs),
        "outputs": list(spec.outputs),
        "checkpoint": spec.checkpoint,
        "egress": [] if verified else None if spec.egress is None else list(spec.egress),
        "ports": list(spec.ports),
        "grace_s": spec.grace_s,
    }


def manifest_of(
    order: Order, attempt: int, units: int, terms: Terms, secrets: str, checkpoint: Bundle | None
) -> Manifest:
    """What to run on one lease.

    Args:
        order: the job.
        attempt: the lease's number.
        units: units leased; the job gets all that they hold, but of the disk what it orders, since providers set
            that aside whole: 16 GiB unless it says.
        terms: those of the offer that was taken.
        secrets: sealed, as hex; empty for none.
        checkpoint: what to restore.
    """
    unit = terms.unit
    disk = min(unit.disk_bytes * units, order.needs.disk_bytes or DISK_BYTES)
    size = UnitSize(
        cpu_milli=unit.cpu_milli * units, memory_bytes=unit.memory_bytes * units, disk_bytes=disk,
        gpus=min(unit.gpus * units, 64), pids=min(unit.pids * units, 1_000_000),
    )  # fmt: skip
    inputs = [Bundle(**item) for item in order.inputs] + ([checkpoint] if checkpoint else [])
    wanted = order.task["egress"]
    egress = list(terms.egress) if wanted is None else sorted({_allowed(host, terms.egress) for host in wanted})
    task = {**order.task, "egress": egress}
    return Manifest(
        job=order.plan.job, attempt=attempt, name=order.name, secrets=secrets, size=size, inputs=inputs, **task
    )


def _allowed(host: str, allowed: list[str]) -> str:
    """The entry of the terms that lets `host` through: what is asked for must stand there word for word."""
    if host in allowed or "*" in allowed:
        return host
    return next((entry for entry in allowed if entry.startswith("*.") and host.endswith(entry[1:])), host)
