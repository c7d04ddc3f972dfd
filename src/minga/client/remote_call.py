"""The part of a remote function that runs inside the job: unpickle, call, write results in a safe form.

This file is sent along and run by the job's own Python: it may import nothing of Minga and only the standard library;
cloudpickle is sent beside it. Results become JSON; bytes and numpy arrays become files beside it; with
`result: "pickle"`, which the tenant must ask for, anything cloudpickle can write. Errors come back as text.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def encode(value: Any, folder: Path, depth: int = 0) -> Any:
    """A JSON value for `value`; arrays and bytes are written to `folder`.

    Raises:
        TypeError: a value that has no safe form.
    """
    if depth > 100:
        raise TypeError("the result is nested over 100 levels")
    if value is None or isinstance(value, bool | int | str):
        return value if not isinstance(value, int) or abs(value) < 2**53 else {"$int": str(value)}
    if isinstance(value, float):
        return {"$float": value.hex()}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, folder, depth + 1) for item in value]}
    if isinstance(value, list):
        return [encode(item, folder, depth + 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"$dict": {key: encode(item, folder, depth + 1) for key, item in value.items()}}
    return _encode_array(value, folder)


def _encode_array(value: Any, folder: Path) -> Any:
    kind = type(value)
    if kind.__module__.partition(".")[0] == "torch" and kind.__name__ in ("Tensor", "Parameter"):
        value = value.detach().cpu().numpy()
    if type(value).__module__.partition(".")[0] != "numpy":
        raise TypeError(f"a {kind.__module__}.{kind.__name__} has no safe form; return plain data, or ask for pickle")
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        return encode(value.item(), folder)
    import numpy  # type: ignore[import-not-found, unused-ignore]

    if value.dtype.hasobject:
        raise TypeError("an array of objects has no safe form; return plain data, or ask for pickle")
    name = f"array-{len(list(folder.glob('array-*.npy')))}.npy"
    numpy.save(folder / name, value, allow_pickle=False)
    return {"$array": name}


def main() -> int:
    """Call the function for each item; exit code 0 also when a call failed, since its error is a result."""
    import pickle

    here = Path(__file__).parent
    out = Path(os.environ["MINGA_OUTPUT_DIR"])
    sys.path.insert(0, str(here))
    order = json.loads((here / "call.json").read_text())
    if list(sys.version_info[:2]) != order["python"]:
        wanted = ".".join(str(part) for part in order["python"])
        return _fail(out, f"the function was made by Python {wanted}, the job has {sys.version.split()[0]}")
    with (here / "call.pickle").open("rb") as handle:
        function, items = pickle.load(handle)
    results = []
    for number, (args, kwargs) in enumerate(items):
        results.append(_call(function, args, kwargs, order["result"], out))
        with open(os.environ["MINGA_PROGRESS"], "a") as handle:
            handle.write(json.dumps({"step": number + 1, "total": len(items)}) + "\n")
    (out / "results.json").write_text(json.dumps(results))
    return 0


def _call(function: Any, args: Any, kwargs: Any, form: str, out: Path) -> dict[str, Any]:
    try:
        value = function(*args, **kwargs)
        if form == "pickle":
            import cloudpickle

            name = f"value-{len(list(out.glob('value-*.pickle')))}.pickle"
            (out / name).write_bytes(cloudpickle.dumps(value))
            return {"pickle": name}
        return {"value": encode(value, out)}
    except Exception as error:
        text = traceback.format_exc(limit=50)
        print(text, file=sys.stderr, flush=True)
        return {"error": f"{type(error).__name__}: {error}"[:2000], "traceback": text[-20000:]}


def _fail(out: Path, reason: str) -> int:
    (out / "results.json").write_text(json.dumps([{"error": reason, "traceback": ""}]))
    print(reason, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
