"""What is sold and what is run: machine, terms, manifest, as they are hashed and sent.

Each model is strict (no unknown field, no coercion) and has one canonical JSON form (`minga.core.codec`); its hash is
keccak-256 of that form. The hash of a machine and of its terms stands in the signed offer, so neither can be denied
later; the hash of a manifest stands in the tenant's journal and the provider's.

Sizes are bytes, times seconds, CPU thousandths of a core. Paths inside a job are POSIX and normalised.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from minga.core.codec import canonical_json, parse_json
from minga.core.crypto import Hash32, keccak, parse_address, parse_hash32, to_hex
from minga.core.errors import InvalidInput, MingaError, UnsafePath

FILES_MAX = 20_000
ENVS_MAX = 1_000
OUTPUTS_MAX = 256


def _as_value_error(check: Any) -> Any:
    def wrapped(value: Any) -> Any:
        try:
            return check(value)
        except MingaError as error:
            raise ValueError(error.fact) from None

    return wrapped


def _blake3(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("not 64 lower-case hex digits")
    return text


def safe_relative(text: str) -> str:
    """A normalised POSIX path that stays inside its folder.

    Raises:
        UnsafePath: absolute, empty, with `..`, NUL, backslash or a control character, or over 1,024 characters.
    """
    path = PurePosixPath(text)
    bad = not text or len(text) > 1024 or path.is_absolute() or ".." in path.parts or "\\" in text
    if bad or any(ord(char) < 32 or ord(char) == 127 for char in text) or str(path) == ".":
        raise UnsafePath(f"path {text[:80]!r} leaves its folder or is not plain", "use a relative path without '..'")
    return str(path)


AddressText = Annotated[str, AfterValidator(_as_value_error(parse_address))]
Hash32Text = Annotated[str, AfterValidator(_as_value_error(parse_hash32))]
Blake3Text = Annotated[str, AfterValidator(_blake3)]
RelativePath = Annotated[str, AfterValidator(_as_value_error(safe_relative))]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**53 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class Model(BaseModel):
    """A strict, immutable wire model."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From JSON bytes, or a decoded value.

        Raises:
            InvalidInput: not JSON, a missing, unknown or wrong field (the fact names it).
            TooLarge: more than a mebibyte of JSON.
        """
        if isinstance(value, bytes | str):
            value = parse_json(value)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise InvalidInput(f"{cls.__name__}: {describe(error)}", "see the reference of this message") from None

    def plain(self) -> dict[str, Any]:
        """The JSON value; fields that are None are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def canonical(self) -> bytes:
        """Canonical JSON bytes."""
        return canonical_json(self.plain())

    def hash32(self) -> Hash32:
        """keccak-256 of the canonical JSON."""
        return Hash32(to_hex(keccak(self.canonical())))


def describe(error: ValidationError) -> str:
    """The first thing wrong, as `field.path: message`; at most 200 characters, and never the offending value."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "value"
    return f"{where}: {first['msg']}"[:200]


class Gpu(Model):
    """One accelerator as the driver names it."""

    vendor: Literal["nvidia", "amd", "intel", "apple"]
    model: Name
    memory_bytes: Positive


class Machine(Model):
    """The canonical description of one machine. `node` is a random id that tells twins apart."""

    version: Literal[1] = 1
    node: Hash32Text
    arch: Name
    cpu: Name
    cpus: Positive
    memory_bytes: Positive
    disk_bytes: Positive
    gpus: list[Gpu] = Field(default=[], max_length=64)
    os: Name


class UnitSize(Model):
    """What one unit of an offer gives a job."""

    cpu_milli: Positive
    memory_bytes: Positive
    disk_bytes: Positive
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    pids: Annotated[int, Field(ge=16, le=1_000_000)] = 1024


class Speed(Model):
    """What one unit of an offer does, as the probe measures it (`minga.verify.hardware`); 0 promises nothing.

    `gemm_mops` is million exact multiply-adds a second over all its devices; `memory_mbps`, `disk_mbps` and
    `link_mbps` are MB/s (10**6 bytes).
    """

    gemm_mops: Count = 0
    memory_mbps: Count = 0
    disk_mbps: Count = 0
    link_mbps: Count = 0


class Terms(Model):
    """Everything that a provider promises and that is not in the offer itself, so that none of it can be denied.

    `transport_key` is the HPKE public key (X25519, hex) to which secrets are sealed; `tls_sha256` the fingerprint of
    the API's certificate (absent on loopback); `egress` the hosts that a job may reach (`[]` none, `["*"]` any public
    host); `sandbox` the runtime; `prepaid_quanta` how many quanta must be paid before the start; `notice_s` the
    warning before a reclaim; `speed` what a unit was measured to do; `retention_s` how long artifacts stay after the
    close.
    """

    version: Literal[1] = 1
    transport_key: Blake3Text
    tls_sha256: Blake3Text | None = None
    unit: UnitSize
    sandbox: Literal["bubblewrap", "podman", "process"]
    environments: list[Name] = Field(default=["python"], max_length=32)
    egress: list[Name] = Field(default=[], max_length=256)
    ports: Annotated[int, Field(ge=0, le=64)] = 0
    prepaid_quanta: Literal[0, 1] = 0
    notice_s: Count = 0
    retention_s: Count = 86400
    region: Annotated[str, Field(max_length=64)] = ""
    speed: Speed | None = None
    price_per_mtok: dict[Name, Name] = {}


class Bundle(Model):
    """One input, put at `target` before the job starts: a deterministic tar (a blob) that is unpacked there, or, of the
    kind `checkpoint`, a manifest (`minga.core.checkpoint`), whose chunks are blobs too.

    `target` is absolute inside the sandbox (`/job/work`, `/data`); `kind` tells what it is for.
    """

    kind: Literal["workdir", "mount", "checkpoint"]
    target: Annotated[str, Field(pattern=r"^/[^\x00-\x1f\\]{0,1023}$")]
    blake3: Blake3Text
    bytes: Count

    @model_validator(mode="after")
    def _target_is_plain(self) -> Self:
        parts = PurePosixPath(self.target).parts
        if ".." in parts or str(PurePosixPath(self.target)) != self.target:
            raise ValueError("target must be a normalised absolute path")
        return self


class Manifest(Model):
    """What to run on one lease. Money is not in it; secrets are, sealed to the provider's transport key.

    `run` and `setup` are shell text (`bash -euo pipefail` semantics are the author's business); `outputs` are globs
    under `/job/work`, besides everything in `/job/out`; `secrets` is `hex(enc ‖ ciphertext)` of HPKE over a JSON map.
    """

    version: Literal[1] = 1
    job: Hash32Text
    attempt: Annotated[int, Field(ge=0, le=2**32 - 1)]
    name: Name
    environment: Name = "python"
    setup: Annotated[str, Field(max_length=65536)] = ""
    run: Annotated[str, Field(min_length=1, max_length=65536)]
    envs: dict[EnvName, Annotated[str, Field(max_length=32768)]] = Field(default={}, max_length=ENVS_MAX)
    secrets: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=1 << 18)] = ""
    size: UnitSize
    inputs: list[Bundle] = Field(default=[], max_length=64)
    outputs: list[RelativePath] = Field(default=[], max_length=OUTPUTS_MAX)
    checkpoint: bool = False
    egress: list[Name] = Field(default=[], max_length=256)
    ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(default=[], max_length=64)
    grace_s: Annotated[int, Field(ge=0, le=3600)] = 30


class FileEntry(Model):
    """One file of an artifact list: relative path, bytes, BLAKE3, and whether it is executable."""

    path: RelativePath
    bytes: Count
    blake3: Blake3Text
    executable: bool = False
