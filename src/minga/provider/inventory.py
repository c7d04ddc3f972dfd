"""The blobs of one lease: which may come, which may go out, what is still to come, what nobody needs any more.

A manifest names its inputs; an input of the kind `checkpoint` is a manifest of its own, whose chunks may come once it
is here, and which counts as complete only with all of them. Out go artifacts, and the kept checkpoints with their
chunks. Knows: names, sizes and the lease's own store. Does not know: HTTP, journals, when a job may start. Rule: a
blob that is not named here neither comes nor goes; methods that read files block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from minga.core.effects import Clock
from minga.core.errors import InvalidInput, MingaError, NotFound, TooLarge
from minga.core.spec import Manifest
from minga.provider.lease_state import State
from minga.provider.prepare import Workplace
from minga.store.blobs import BlobStore
from minga.store.checkpoints import read_manifest

BUSY_S = 1.0
"""A tenant that fetches is given this long between two chunks before the checkpoint that it fetches may be replaced."""

_CACHED_MAX = 8


class Inventory:
    """Of one lease. What is remembered here follows from the files and the lease's state, and can be lost."""

    def __init__(self, place: Workplace) -> None:
        """Over the lease's own store."""
        self._place = place
        self._read: dict[str, dict[str, int]] = {}
        self._awaited: set[str] | None = None
        self._fetching = 0
        self._fetched_at = float("-inf")

    @property
    def _blobs(self) -> BlobStore:
        return self._place.blobs

    # ------------------------------------------------------------------------------------------------------- coming

    def expected_bytes(self, manifest: Manifest, name: str) -> int:
        """Size of a blob that the tenant may send.

        Raises:
            NotFound: no input has that name, nor a chunk of the checkpoint, as far as its manifest is here.
        """
        for bundle in manifest.inputs:
            if bundle.blake3 == name:
                return bundle.bytes
        size = self._chunks(manifest).get(name)
        if size is None:
            raise NotFound(f"blob {name[:16]} is not an input of this lease", "send what the manifest names")
        return size

    def is_input(self, manifest: Manifest, name: str) -> bool:
        """Whether `name` is an input of the manifest, or a chunk of the checkpoint that it restores."""
        return any(bundle.blake3 == name for bundle in manifest.inputs) or name in self._chunks(manifest)

    def missing(self, manifest: Manifest, inputs: Iterable[str]) -> list[str]:
        """What the tenant should send now, for `inputs` that are not complete: themselves, or a checkpoint's chunks."""
        found = []
        for name in inputs:
            if name == _restored(manifest) and self._blobs.has(name):
                found += sorted(self._await_chunks(manifest))
            else:
                found.append(name)
        return found

    def completed(self, manifest: Manifest, inputs: Iterable[str], name: str) -> list[str]:
        """Those of `inputs` that blob `name`, which has just become whole, completes.

        Raises:
            InvalidInput, TooLarge: it is a checkpoint's manifest and none, or of more than the job ordered; it is gone.
        """
        restored = _restored(manifest)
        if name == restored:
            try:
                _check_fits(read_manifest(self._blobs, name).total_bytes, manifest)
            except MingaError:
                self._blobs.remove(name)
                raise
        if self._awaited is not None:
            self._awaited.discard(name)
        return [item for item in inputs if self._is_complete(manifest, item)]

    def _is_complete(self, manifest: Manifest, name: str) -> bool:
        return self._blobs.has(name) and (name != _restored(manifest) or not self._await_chunks(manifest))

    def _await_chunks(self, manifest: Manifest) -> set[str]:
        if self._awaited is None:
            self._awaited = {name for name in self._chunks(manifest) if not self._blobs.has(name)}
        return self._awaited

    def _chunks(self, manifest: Manifest) -> dict[str, int]:
        name = _restored(manifest)
        return self._sizes(name) if name is not None and self._blobs.has(name) else {}

    def borrow(self, manifest: Manifest, others: Iterable[BlobStore]) -> None:
        """Share what earlier leases of the same job hold here."""
        stores = list(others)
        for bundle in manifest.inputs:
            self._borrow(bundle.blake3, stores)
        for name in self._chunks(manifest):
            self._borrow(name, stores)

    def _borrow(self, name: str, stores: list[BlobStore]) -> None:
        any(self._blobs.borrow(name, store) for store in stores)

    # -------------------------------------------------------------------------------------------------------- going

    def gives(self, state: State, name: str) -> bool:
        """Whether `name` is a file of the lease's artifacts, or of a kept checkpoint."""
        if any(item["blake3"] == name for item in state.files):
            return True
        return any(name == kept["manifest"] or name in self._kept(kept) for kept in state.checkpoints)

    @contextmanager
    def giving(self, clock: Clock) -> Iterator[None]:
        """Around the sending of a blob."""
        self._fetching += 1
        try:
            yield
        finally:
            self._fetching -= 1
            self._fetched_at = clock.monotonic()

    def is_fetched(self, now: float) -> bool:
        """Whether somebody fetches (`now` is monotonic): what is kept should stay for a moment."""
        return self._fetching > 0 or now - self._fetched_at < BUSY_S

    def sweep(self, state: State) -> None:
        """Remove every blob that is no input, artifact or part of a kept checkpoint; not while one is taken."""
        used = {item["blake3"] for item in state.files}
        if state.manifest is not None:
            manifest = Manifest.parse(state.manifest)
            used |= {bundle.blake3 for bundle in manifest.inputs} | self._chunks(manifest).keys()
        for kept in state.checkpoints:
            used |= {kept["manifest"]} | self._kept(kept).keys()
        blobs = self._blobs
        for name in blobs.sizes().keys() - used:
            blobs.remove(name)
        for staged in (blobs.folder / "partial").glob("put-*"):
            staged.unlink(missing_ok=True)  # of a checkpoint that was not taken to its end

    def _kept(self, checkpoint: dict[str, Any]) -> dict[str, int]:
        try:
            return self._sizes(checkpoint["manifest"])
        except (NotFound, InvalidInput):
            return {}  # its files were forgotten

    def _sizes(self, name: str) -> dict[str, int]:
        """Bytes of each chunk that a checkpoint's manifest names."""
        if name not in self._read:
            found = read_manifest(self._blobs, name).sizes()
            while len(self._read) >= _CACHED_MAX:
                del self._read[next(iter(self._read))]
            self._read[name] = found
        return self._read[name]


def _check_fits(total: int, manifest: Manifest) -> None:
    if total > manifest.size.disk_bytes:
        raise TooLarge(
            f"the checkpoint holds {total} bytes, the job ordered {manifest.size.disk_bytes}", "order more disk"
        )


def _restored(manifest: Manifest) -> str | None:
    return next((bundle.blake3 for bundle in manifest.inputs if bundle.kind == "checkpoint"), None)
