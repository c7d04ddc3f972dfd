"""The program of the embedded chain: found on PATH, in the cache, or fetched once and checked.

Knows one pinned version of anvil and the SHA-512 of its npm package for each platform. It is fetched by `npm pack`, so
that the user's own npm configuration (registry, proxy, certificates) applies. Does not run a chain. Rule: what does not
have the pinned hash is never unpacked, let alone run.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from minga.core.errors import MissingPrerequisite, NetworkError

VERSION = "1.7.1"
# SHA-512 of each package as npm records it (a published version cannot change). That of linux-amd64 was computed from
# the package itself; the others were read from a public npm lock file whose linux-amd64 entry is the same, and have not
# been fetched by us. A wrong one refuses; it lets nothing pass.
PACKAGES = {
    "linux-amd64": "+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
    "linux-arm64": "ykHJmFOGdBR8+9smOKBm9ZZDCCCkLQctiHOAddLvmYx9mPeBDMfq6jP51hKYsO5MG8ClPLSlWe+JpiXPjoXgBQ==",
    "darwin-amd64": "OgwzwY+FsGrsPyDv4mmbhOwARO8s37YHrm2qaNzgSH4VlKnXgJCrnoT7bpgOhLyBPtxXjBT8L2E3b79deesXRg==",
    "darwin-arm64": "JNeu3+A3f/npXLn8SR8EahVcqE7BpO9VQZMcPvSIy27/RNc1GsoEBvSLR99aSvt8sGKWAgNg/EzrtjAPq6mxcA==",
    "win32-amd64": "IeuBcmQ+AQKUxXA77czSVIfpST+KLBdXaL71JlK/h6e0DoP2CYnmVZn8WE/fuQfjAU2zaWw7PDXmq1kedbIUGA==",
}
BINARY_BYTES_MAX = 200 << 20
FETCH_SECONDS = 600
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_SYSTEMS = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}
_BY_HAND = f"install anvil {VERSION} (a part of Foundry) and put it on PATH"


def find_anvil(environ: Mapping[str, str], fetch: bool = True) -> Path:
    """The program: `anvil` of the pinned version on PATH, else the cached one, else fetched (unless `fetch` is false).

    The cache is `$MINGA_CACHE`, else `~/.cache/minga`. Blocking: a fetch takes 20 MB and up to minutes.

    Raises:
        MissingPrerequisite: there is none and it cannot be fetched: no package for this platform, no npm, npm fails.
        NetworkError: what npm brought does not have the pinned hash.
    """
    on_path = shutil.which("anvil", path=environ.get("PATH"))
    if on_path and _version(Path(on_path)) == VERSION:
        return Path(on_path)
    name = platform_name()
    cached = cache_folder(environ) / f"anvil-{VERSION}-{name}{'.exe' if name.startswith('win32') else ''}"
    if cached.is_file() and os.access(cached, os.X_OK):
        return cached
    if not fetch:
        raise MissingPrerequisite(f"anvil {VERSION} is not installed", "run `minga up`, which fetches it")
    return _install(_fetch(name, environ), name, cached)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where fetched programs stay."""
    named = environ.get("MINGA_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "minga"


def platform_name() -> str:
    """This platform as the packages name it, such as `linux-amd64`."""
    system = _SYSTEMS.get(platform.system(), platform.system().lower())
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    return f"{system}-{machine}"


def _version(program: Path) -> str:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = answer.stdout.split()
    return words[2].partition("-")[0] if words[:2] == ["anvil", "Version:"] else ""


def _fetch(name: str, environ: Mapping[str, str]) -> bytes:
    """The package's tarball as npm brings it, unchecked."""
    if name not in PACKAGES:
        raise MissingPrerequisite(f"there is no anvil package for {name}", _BY_HAND)
    npm = shutil.which("npm", path=environ.get("PATH"))
    if npm is None:
        raise MissingPrerequisite("npm is not installed, and it is what fetches anvil", f"install npm, or {_BY_HAND}")
    with tempfile.TemporaryDirectory(prefix="minga-anvil-") as folder:
        command = [npm, "pack", f"@foundry-rs/anvil-{name}@{VERSION}", "--pack-destination", folder, "--loglevel=error"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=dict(environ),
                capture_output=True,
                text=True,
                timeout=FETCH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MissingPrerequisite(f"npm did not fetch anvil in {FETCH_SECONDS} s", "check the network") from None
        tarballs = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(tarballs) != 1:
            last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            raise MissingPrerequisite(f"npm could not fetch anvil: {last[:200]}", f"check npm's network, or {_BY_HAND}")
        return tarballs[0].read_bytes()


def _install(tarball: bytes, name: str, target: Path) -> Path:
    """Check the tarball, take the one program out of it, put it in place whole."""
    found = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != PACKAGES[name]:
        raise NetworkError(
            f"the anvil package has SHA-512 {found[:16]}…, not {PACKAGES[name][:16]}…; it was not used",
            "check npm's registry and proxy",
        )
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        member = archive.extractfile(f"package/bin/anvil{'.exe' if name.startswith('win32') else ''}")
        program = member.read(BINARY_BYTES_MAX) if member else b""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".anvil-")
    with os.fdopen(handle, "wb") as file:
        file.write(program)
    os.chmod(temporary, 0o755)
    os.replace(temporary, target)
    return target
