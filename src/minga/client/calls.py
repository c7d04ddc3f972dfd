"""What travels for a remote function: the call as files of a job's workdir, and its results as data.

The call is pickled here and unpickled in the sandbox (`minga.client.remote_call`). Results are read without unpickling
anything, unless the tenant asked for pickles; every file was verified by its hash before. Rule: what a provider sends
may be wrong, and may never run.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from minga.client.folder import Artifact
from minga.core.codec import check_nesting
from minga.core.errors import BadArtifact, InvalidInput, MissingPrerequisite, TenantError

RESULT_BYTES_MAX = 256 << 20
RESULT_DEPTH_MAX = 256
"""Twice the levels that `minga.client.remote_call` writes, since a form and its value are a level each."""


class RemoteError(TenantError):
    """The function raised an exception in its job; `details["traceback"]` is the remote text."""

    code = "remote-error"
    exit_code = 1

    def __str__(self) -> str:
        return f"{self.fact}\n\nremote traceback:\n{self.details.get('traceback', '')}"


def write_call(folder: Path, called: Callable[..., Any], items: list[Any], result: str) -> None:
    """Write what the job needs to make the calls: the pickle, the caller, and cloudpickle itself."""
    folder.mkdir(parents=True)
    with _by_value(called) as cloudpickle:
        (folder / "call.pickle").write_bytes(cloudpickle.dumps((called, items)))
    order = {"python": list(sys.version_info[:2]), "result": result}
    (folder / "call.json").write_text(json.dumps(order))
    source = resources.files("minga.client").joinpath("remote_call.py").read_text(encoding="utf-8")
    (folder / "remote_call.py").write_text(source, encoding="utf-8")
    package = folder / "cloudpickle"
    package.mkdir()
    for path in Path(str(cloudpickle.__file__)).parent.glob("*.py"):
        (package / path.name).write_bytes(path.read_bytes())


@contextmanager
def _by_value(called: Callable[..., Any]) -> Iterator[Any]:
    """cloudpickle, told to send the function's own module along: the job cannot import it."""
    import cloudpickle

    module = sys.modules.get(called.__module__)
    registered = module is not None and called.__module__ not in ("__main__", "builtins")
    if registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield cloudpickle
    finally:
        if registered:
            cloudpickle.unregister_pickle_by_value(module)


def read_results(artifacts: list[Artifact], count: int, result: str) -> Iterator[Any]:
    """The results of `count` calls from what a job left.

    Raises:
        RemoteError: the first call that failed.
        BadArtifact: the results are not whole, or not in their form.
    """
    files = {artifact.path: artifact for artifact in artifacts}
    if "results.json" not in files or files["results.json"].bytes > RESULT_BYTES_MAX:
        raise BadArtifact("the job left no results", "see its log")
    try:
        text = files["results.json"].file.read_text(encoding="utf-8")
        check_nesting(text, RESULT_DEPTH_MAX)
        listed = json.loads(text)
        assert isinstance(listed, list)
    except (ValueError, InvalidInput, AssertionError):
        raise BadArtifact("the job's results are not a list in JSON", "the provider is at fault") from None
    for item in listed:
        if not isinstance(item, dict):
            raise BadArtifact("a result is not an object", "the provider is at fault")
        if "error" in item:
            raise RemoteError(
                str(item["error"])[:2000], "see the traceback", traceback=str(item.get("traceback"))[:20000]
            )
        yield _value(item, files, result)
    if len(listed) != count:
        raise BadArtifact(f"the job left {len(listed)} results for {count} calls", "the provider is at fault")


def _value(item: dict[str, Any], files: dict[str, Artifact], result: str) -> Any:
    if "pickle" in item:
        if result != "pickle":
            raise BadArtifact("the job answered with a pickle, which nobody asked for", "the provider is at fault")
        import pickle

        with _file(str(item["pickle"]), files).open("rb") as handle:
            return pickle.load(handle)
    try:
        return decode(item["value"], files)
    except (KeyError, TypeError, ValueError, AttributeError, EOFError, OSError, RecursionError) as error:
        raise BadArtifact(f"a result is malformed: {error}"[:200], "the provider is at fault") from None


def _file(name: str, files: dict[str, Artifact]) -> Path:
    if name not in files:
        raise BadArtifact(f"the results name {name[:40]!r}, which is not there", "the provider is at fault")
    return files[name].file


def decode(value: Any, files: dict[str, Artifact]) -> Any:
    """The value of its JSON form (see `minga.client.remote_call.encode`).

    Raises:
        ValueError, KeyError, TypeError: malformed.
    """
    if isinstance(value, list):
        return [decode(item, files) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "$dict":
        return {key: decode(item, files) for key, item in held.items()}
    if kind == "$tuple":
        return tuple(decode(item, files) for item in held)
    if kind == "$int":
        return int(str(held)[:10_000])
    if kind == "$float":
        return float.fromhex(held)
    if kind == "$bytes":
        return base64.b64decode(held, validate=True)
    if kind == "$array":
        return _array(_file(str(held), files))
    raise ValueError(f"unknown form {kind[:20]!r}")


def _array(path: Path) -> Any:
    try:
        import numpy  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise MissingPrerequisite("the result is an array, and numpy is not here", "pip install numpy") from None
    return numpy.load(path, allow_pickle=False)
