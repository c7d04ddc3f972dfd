"""What identifies a piece of work, and what does not."""

from __future__ import annotations

import pytest

from minga.core.errors import InvalidInput
from minga.core.spec import Bundle, Manifest, UnitSize
from minga.core.work import Trace, Work

SIZE = UnitSize(cpu_milli=1000, memory_bytes=1 << 30, disk_bytes=1 << 30)
INPUT = Bundle(kind="workdir", target="/job/work", blake3="ab" * 32, bytes=10)


def a_manifest(**changes) -> Manifest:
    fields = {"job": "0x" + "11" * 32, "attempt": 0, "name": "job", "run": "python train.py", "size": SIZE}
    return Manifest(**(fields | {"inputs": [INPUT]} | changes))


def a_hash(trace: Trace | None = None, **changes) -> str:
    return Work.of(a_manifest(**changes), trace or Trace()).hash32()


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "python other.py"},
        {"setup": "pip install x"},
        {"envs": {"OMP_NUM_THREADS": "1"}},
        {"environment": "other"},
        {"inputs": [INPUT.model_copy(update={"blake3": "cd" * 32})]},
        {"inputs": []},
        {"trace": Trace(every=2)},
        {"trace": Trace(determinism="D1")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_decides_the_result_is_in_the_hash(changes):
    assert a_hash(**changes) != a_hash()


@pytest.mark.parametrize(
    "changes", [{"attempt": 1}, {"job": "0x" + "22" * 32}, {"name": "other"}, {"outputs": ["*.txt"]}], ids=str
)
def test_whatever_does_not_is_not(changes):
    assert a_hash(**changes) == a_hash()


def test_work_with_secrets_cannot_be_checked():
    with pytest.raises(InvalidInput, match="secrets"):
        Work.of(a_manifest(secrets="ab"), Trace())
