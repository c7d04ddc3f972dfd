"""Functions that run elsewhere: `@minga.function(gpu="H100", budget="2")`, then `.remote(…)`, `.map(…)`, `.local(…)`.

The function and its arguments are pickled (cloudpickle) here and unpickled inside the sandbox alone. What comes back
is data: JSON, with bytes and numpy arrays; nothing is unpickled on this side, unless the tenant asks for it with
`result="pickle"`, which lets a dishonest provider run code here. A function's own exception is raised here as
`RemoteError` with the remote traceback's text.

Does not know: how jobs run (`minga.client.session`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import update_wrapper
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from minga.client.calls import RemoteError, read_results, write_call
from minga.client.jobfile import JobSpec
from minga.client.session import Client, JobHandle
from minga.core.errors import InvalidInput, JobFailed
from minga.core.units import parse_cpus, parse_size, parse_usd
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.matching import Requirements

P = ParamSpec("P")
R = TypeVar("R")

COMMAND = "python3 remote_call.py"
ITEMS_MAX = 100_000

MakeClient = Callable[[], Client]


@dataclass(frozen=True)
class Options:
    """How a function's jobs are run; see `function`."""

    spec: JobSpec
    result: Literal["data", "pickle"]
    client: MakeClient


class RemoteFunction(Generic[P, R]):
    """A function and how it runs elsewhere. Calling it runs it here, as `local` does."""

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        """Made by `function`."""
        self._function = function
        self._options = options
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here."""
        return self._function(*args, **kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it in a job of its own and return its result.

        Raises:
            RemoteError: it raised an exception.
            JobFailed: the job ended without a result (stopped, out of budget, out of memory).
            NoMatch, BudgetTooSmall, InsufficientFunds: as `Client.submit`.
        """
        found: list[R] = list(self._run([(args, kwargs)], 1))
        return found[0]

    def map(self, items: Iterable[Any], *, jobs: int = 1) -> list[R]:
        """Call it with each item, in `jobs` jobs at once, each with the whole budget's share; results in order.

        Raises:
            InvalidInput: no whole number of jobs from 1, or over 100,000 items.
            RemoteError: of the first item that failed.
        """
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((item,), {}) for item in items]
        if not isinstance(jobs, int) or jobs < 1 or len(calls) > ITEMS_MAX:
            raise InvalidInput(
                f"{jobs} jobs for {len(calls)} items", f"use 1 or more jobs and at most {ITEMS_MAX} items"
            )
        return list(self._run(calls, jobs)) if calls else []

    def _run(self, calls: list[tuple[tuple[Any, ...], dict[str, Any]]], jobs: int) -> Iterator[R]:
        jobs = min(jobs, len(calls))
        size = -(-len(calls) // jobs)
        parts = [calls[start : start + size] for start in range(0, len(calls), size)]
        client = self._options.client()
        with tempfile.TemporaryDirectory(prefix="minga-call-") as scratch:
            handles = []
            for number, part in enumerate(parts):
                folder = Path(scratch) / str(number)
                write_call(folder, self._function, part, self._options.result)
                handles.append(client.submit(self._spec(folder, len(parts))))
        # The files were packed when the job was submitted: the scratch folder is not needed any more.
        for handle, part in zip(handles, parts, strict=True):
            yield from self._results(handle, len(part))

    def _spec(self, folder: Path, parts: int) -> JobSpec:
        from decimal import ROUND_DOWN, Decimal

        spec = replace(self._options.spec, workdir=folder, run=COMMAND)
        if parts == 1 or spec.budget is None:
            return spec
        share = (Decimal(spec.budget.removeprefix("$")) / parts).quantize(Decimal("0.000001"), ROUND_DOWN)
        return replace(spec, budget=str(share))

    def _results(self, handle: JobHandle, count: int) -> Iterator[R]:
        status = handle.wait()
        if status.phase != "done":
            raise JobFailed(
                f"job {handle.id[:12]} of {self._function.__name__} {status.phase}: {status.reason}",
                f"see `minga logs {handle.id[:12]}`",
            )
        yield from read_results(handle.artifacts(), count, self._options.result)


def function(
    *,
    client: Client | MakeClient | None = None,
    gpu: str | None = None,
    cpus: int | float | str | None = None,
    memory: str | None = None,
    disk: str | None = None,
    budget: str | int = "1",
    max_price: str | None = None,
    envs: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    setup: str = "",
    name: str | None = None,
    result: Literal["data", "pickle"] = "data",
    allow_egress: list[str] | None = None,
) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]:
    """Make a function that can run on the network.

    Args:
        client: the client to use, or a function that makes one; by default the one of `minga.sdk.connect()`.
        gpu: accelerators, such as `"H100"` or `"RTX4090:2"`.
        cpus, memory, disk: what it needs, as in a job file.
        budget: dollars, at most, for one `remote` call or one whole `map`.
        max_price: dollars an hour, at most.
        envs, secrets: variables of the job; secrets are sealed to the provider.
        setup: shell text before the call (free time).
        name: for people; the function's name by default.
        result: `"pickle"` unpickles on this side what the provider sent: only with providers that you trust.
        allow_egress: hosts that the function must reach.

    Raises:
        InvalidInput: a malformed size, accelerator or budget.
    """
    parse_usd(budget, 18)
    if result not in ("data", "pickle"):
        raise InvalidInput(f"result={result!r}", 'use "data" or "pickle"')
    needs = Requirements(
        gpus=parse_accelerators(gpu),
        cpu_milli=parse_cpus(cpus) if cpus is not None else 0,
        memory_bytes=parse_size(memory) if memory else 0,
        disk_bytes=parse_size(disk) if disk else 0,
    )
    spec = JobSpec(
        run=COMMAND, requirements=needs, envs=envs or {}, secrets=secrets or {}, budget=str(budget), per_hour=max_price,
        setup=setup, egress=tuple(allow_egress) if allow_egress is not None else None,
    )  # fmt: skip

    def decorate(wrapped: Callable[P, R]) -> RemoteFunction[P, R]:
        named = replace(spec, name=(name or wrapped.__name__)[:128])
        return RemoteFunction(wrapped, Options(named, result, _maker(client)))

    return decorate


def _maker(client: Client | MakeClient | None) -> MakeClient:
    if client is None:
        return default_client
    if isinstance(client, Client):
        return lambda: client
    return client


_default: list[MakeClient] = []


def set_default_client(make: MakeClient) -> None:
    """Say what gives the client of functions that name none; `minga.sdk` does at its import."""
    _default[:] = [make]


def default_client() -> Client:
    """The client of functions that name none.

    Raises:
        InvalidInput: nothing gives one.
    """
    if not _default:
        raise InvalidInput("this function has no client", "write @minga.function(client=…), or `import minga.sdk`")
    return _default[0]()


__all__ = ["RemoteError", "RemoteFunction", "default_client", "function", "set_default_client"]
