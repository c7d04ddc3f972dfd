"""CDI files in forms that nobody should write: one clear error each, and never more access than was described."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.errors import LimitNotEnforceable
from minga.runtimes import gpus
from minga.runtimes.gpu_busy import busy_percent

NAME = "nvidia.com/gpu=0"
NODE = {"path": "/dev/nvidia0", "hostPath": "/dev/null"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["/dev/null", "0", "A=1", "/"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["name", "path", "hostPath", "containerPath", "deviceNodes", "mounts", "env", "containerEdits"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def written(folder: Path, spec: Any, name: str = "nvidia.json") -> Path:
    (folder / name).write_text(json.dumps(spec))
    return folder


def spec_of(edits: Any, common: Any = None) -> dict[str, Any]:
    return {"kind": "nvidia.com/gpu", "containerEdits": common, "devices": [{"name": "0", "containerEdits": edits}]}


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "nvidia.com/gpu", "devices": None}, {"kind": "nvidia.com/gpu", "devices": 5},
        {"kind": "nvidia.com/gpu", "devices": ["0"]}, {"kind": "nvidia.com/gpu", "devices": {"0": {}}},
        spec_of("text"),
        spec_of([1]), spec_of({}, "text"), spec_of({"deviceNodes": 5}), spec_of({"deviceNodes": ["x"]}),
        spec_of({"deviceNodes": [{}]}), spec_of({"mounts": [{}]}), spec_of({"mounts": [{"hostPath": "/etc/passwd"}]}),
        spec_of({"mounts": "x"}), spec_of({"env": 5}), spec_of({"deviceNodes": [{"path": None}]}),
        spec_of({"deviceNodes": [{"path": "/dev/none-such"}]}), spec_of({"deviceNodes": [{"path": "/tmp"}]}),
    ],
    ids=lambda spec: json.dumps(spec)[26:90],
)  # fmt: skip
def test_a_malformed_specification_is_one_error(tmp_path: Path, spec: dict[str, Any]) -> None:
    with pytest.raises(LimitNotEnforceable) as caught:
        gpus.access((NAME,), (written(tmp_path, spec),), dev=tmp_path)
    assert caught.value.remedy
    assert len(caught.value.fact) <= 200


@settings(max_examples=150, deadline=None)
@given(JSON, JSON)
def test_whatever_is_described_is_an_access_to_what_exists_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, edits: Any, common: Any
) -> None:
    folder = written(tmp_path_factory.mktemp("cdi"), spec_of(edits, common))
    try:
        found = gpus.access((NAME,), (folder,), dev=folder)
    except LimitNotEnforceable:
        return
    assert all(Path(here).is_char_device() for here, _ in found.devices)
    assert all(Path(here).is_file() for here, _ in found.files)
    assert all(isinstance(text, str) for pair in found.env for text in pair)


@pytest.mark.parametrize("name", ["huge.json", "binary.json", "binary.yaml", "dangling.json", "notes.txt"])
def test_other_files_beside_a_good_one_change_nothing(tmp_path: Path, name: str) -> None:
    written(tmp_path, spec_of({"deviceNodes": [NODE]}), "z.json")
    path = tmp_path / name
    if name == "huge.json":
        path.write_bytes(b" " * (gpus._SPEC_BYTES_MAX + 1))
    elif name == "dangling.json":
        path.mkdir()
        (path / "inner.json").write_text("{}")
        path = path.rename(tmp_path / "folder")
    else:
        path.write_bytes(b"\xff\xfe\x00")
    assert gpus.access((NAME,), (tmp_path,)).devices == (("/dev/null", "/dev/nvidia0"),)


def test_an_empty_description_gives_nothing(tmp_path: Path) -> None:
    assert gpus.access((NAME,), (written(tmp_path, spec_of(None)),)) == gpus.GpuAccess()


def test_the_first_folder_and_the_first_file_win(tmp_path: Path) -> None:
    for folder, host in (("a", "/dev/null"), ("b", "/dev/zero")):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, spec_of({"deviceNodes": [NODE | {"hostPath": host}]}))
    folders = (tmp_path / "none", tmp_path / "a", tmp_path / "b")
    assert gpus.access((NAME,), folders).devices == (("/dev/null", "/dev/nvidia0"),)


def test_a_device_named_twice_is_given_once_and_later_variables_win(tmp_path: Path) -> None:
    edits = {"deviceNodes": [NODE, NODE], "env": ["A=1", "B", "A=2=3"]}
    found = gpus.access((NAME, NAME), (written(tmp_path, spec_of(edits, {"env": ["A=0"]})),))
    assert found.devices == (("/dev/null", "/dev/nvidia0"),)
    assert dict(found.env) == {"A": "2=3", "B": ""}


class Library:
    """Stands for NVML on a machine whose cards are this busy; None for one that does not answer."""

    class NVMLError(Exception):
        """As the library's."""

    def __init__(self, busy: dict[object, int | None], broken: bool = False) -> None:
        self.busy = busy
        self.broken = broken

    def nvmlInit(self) -> None:
        """Load the driver."""
        if self.broken:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        """A card by its number."""
        return self._known(index)

    def nvmlDeviceGetHandleByUUID(self, name: str) -> object:
        """A card by its name."""
        return self._known(name)

    def _known(self, key: object) -> object:
        if key not in self.busy:
            raise self.NVMLError("no such card")
        return key

    def nvmlDeviceGetUtilizationRates(self, handle: object) -> object:
        """How busy it is."""
        if self.busy[handle] is None:
            raise self.NVMLError("lost")
        return SimpleNamespace(gpu=self.busy[handle])


@pytest.mark.parametrize(
    ("devices", "busy"),
    [
        ((), None), (("amd.com/gpu=0",), None), ((NAME, "amd.com/gpu=0"), None), ((NAME,), 40),
        ((NAME, "nvidia.com/gpu=GPU-1"), 70), ((NAME, "nvidia.com/gpu=2"), 20), (("nvidia.com/gpu=9",), None),
        ((NAME, "nvidia.com/gpu=3"), None), (("nvidia.com/gpu=",), None), (("nvidia.com/gpu=٣",), None),
    ],
)  # fmt: skip
def test_a_card_that_does_not_answer_is_not_known_and_never_idle(
    monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], busy: int | None
) -> None:
    library = Library({0: 40, "GPU-1": 100, 2: 1, 3: None})
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert busy_percent(devices) == busy
    library.broken = True
    assert busy_percent(devices) is None
