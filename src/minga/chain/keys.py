"""Keys on disk: Ethereum keystore v3 for real networks, plain and marked for the embedded chain.

| file               | holds                                 | opened with                                         |
|--------------------|---------------------------------------|-----------------------------------------------------|
| NAME.json          | keystore v3 (scrypt, AES-128-CTR)     | passphrase: environment, file, OS keyring, prompt   |
| NAME.embedded.json | the secret itself, `"embedded": true` | nothing, by a caller that says `embedded_ok`        |

Does not know chains. Rules: files are 0600 and appear whole or not at all; an existing key is never overwritten; no
secret or passphrase stands in an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minga.chain.chain import write_private
from minga.core.crypto import Address, PrivateKey, new_key, parse_address
from minga.core.errors import Conflict, InvalidInput, KeyLocked, MissingPrerequisite, NotFound

SCRYPT_N = 1 << 18
SERVICE = "minga"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")

Passphrase = Callable[[str], str]
"""Gives the passphrase of the key with that name; raises `KeyLocked` when there is none."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A stored key, without its secret."""

    name: str
    address: Address
    embedded: bool


class KeyStore:
    """A folder of keys (0700)."""

    def __init__(self, folder: Path, passphrase: Passphrase, scrypt_n: int = SCRYPT_N) -> None:
        """`scrypt_n`: work factor of new keystores, a power of two (smaller only in tests)."""
        self.folder = folder
        self._passphrase = passphrase
        self._scrypt_n = scrypt_n

    def create(self, name: str, entropy: bytes) -> PrivateKey:
        """A new key from 32 bytes of entropy, sealed as a keystore. Raises as `add`."""
        return self.add(name, new_key(entropy))

    def add(self, name: str, key: PrivateKey) -> PrivateKey:
        """Seal `key` as a keystore under `name`.

        Raises:
            InvalidInput: not a name (letters, digits, `-`, `_`; at most 64).
            Conflict: the name is taken.
            KeyLocked: there is no passphrase.
        """
        path = self._free(name)
        passphrase = self._passphrase(name)
        from eth_account import Account  # 0.6 s, and only needed here

        sealed = Account.encrypt(key.secret(), passphrase, kdf="scrypt", iterations=self._scrypt_n)
        write_private(path, json.dumps(sealed, indent=2).encode())
        return key

    def create_embedded(self, name: str, entropy: bytes) -> PrivateKey:
        """A new key for the embedded chain, kept unsealed and marked. Raises as `add`, but for `KeyLocked`."""
        self._free(name)
        key = new_key(entropy)
        body = {"embedded": True, "address": key.address, "secret": key.secret().hex()}
        write_private(self._embedded(name), json.dumps(body, indent=2).encode())
        return key

    def load(self, name: str, embedded_ok: bool = False) -> PrivateKey:
        """Open a key; `embedded_ok` says that the caller works on the embedded chain.

        Raises:
            NotFound: no such key.
            KeyLocked: no passphrase, or a wrong one.
            InvalidInput: the file is not a key, or an embedded key is asked for on another chain.
        """
        _check_name(name)
        if self._embedded(name).exists():
            if not embedded_ok:
                raise InvalidInput(
                    f"{name} is a key of the embedded chain: its secret lies open on the disk", "make a sealed key"
                )
            return self._open_embedded(self._embedded(name))
        body = _read(self._sealed(name))
        passphrase = self._passphrase(name)
        from eth_account import Account

        try:
            secret = bytes(Account.decrypt(body, passphrase))
        except ValueError as error:
            if "MAC" in str(error):
                raise KeyLocked(f"the passphrase does not open {name}", "try again, or restore the key") from None
            raise InvalidInput(f"{name}.json is not a keystore", "restore it from a copy") from None
        except (KeyError, TypeError, NotImplementedError):
            raise InvalidInput(f"{name}.json is not a keystore", "restore it from a copy") from None
        return PrivateKey(secret)

    def _open_embedded(self, path: Path) -> PrivateKey:
        body = _read(path)
        try:
            key = PrivateKey(bytes.fromhex(body["secret"]))
        except (KeyError, TypeError, ValueError):
            raise InvalidInput(f"{path.name} is not a key", "delete it and start again") from None
        if body.get("embedded") is not True or body.get("address") != key.address:
            raise InvalidInput(f"{path.name} is not a key", "delete it and start again")
        return key

    def info(self) -> list[KeyInfo]:
        """All keys, by name; nothing is opened. Files that are not keys are left out."""
        found = []
        for path in sorted(self.folder.glob("*.json")) if self.folder.is_dir() else ():
            embedded = path.name.endswith(".embedded.json")
            try:
                address = _read(path)["address"]
                text = address if str(address).startswith("0x") else f"0x{address}"
                name = path.name.removesuffix(".embedded.json" if embedded else ".json")
                found.append(KeyInfo(name, parse_address(text), embedded))
            except (InvalidInput, KeyError, NotFound):
                continue
        return found

    def _free(self, name: str) -> Path:
        _check_name(name)
        if self._sealed(name).exists() or self._embedded(name).exists():
            raise Conflict(f"there is a key {name} already", "use another name, or move the old file away")
        return self._sealed(name)

    def _sealed(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _embedded(self, name: str) -> Path:
        return self.folder / f"{name}.embedded.json"


def _check_name(name: str) -> None:
    if not 0 < len(name) <= 64 or not set(name) <= _NAME_CHARACTERS:
        raise InvalidInput(f"{name[:80]!r} is not a key name", "use letters, digits, - and _")


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no key {path.stem}", "make one with `minga wallet`") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path.name} is not readable as a key", "restore it from a copy") from error
    if not isinstance(body, dict):
        raise InvalidInput(f"{path.name} is not a key", "restore it from a copy")
    return body


def passphrase_from(
    environ: Mapping[str, str], prompt: Callable[[str], str] | None = None, use_keyring: bool = True
) -> Passphrase:
    """A passphrase from, in this order, MINGA_PASSPHRASE, the file MINGA_PASSPHRASE_FILE, the OS keyring, `prompt`."""

    def ask(name: str) -> str:
        if "MINGA_PASSPHRASE" in environ:
            return environ["MINGA_PASSPHRASE"]
        if "MINGA_PASSPHRASE_FILE" in environ:
            try:
                return Path(environ["MINGA_PASSPHRASE_FILE"]).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError):
                raise KeyLocked("MINGA_PASSPHRASE_FILE cannot be read", "name a readable text file") from None
        kept = _from_keyring(name) if use_keyring else None
        if kept is not None:
            return kept
        if prompt is None:
            raise KeyLocked(f"no passphrase for {name}", "set MINGA_PASSPHRASE_FILE, or run in a terminal")
        return prompt(name)

    return ask


def _from_keyring(name: str) -> str | None:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return None
    try:
        return keyring.get_password(SERVICE, name)
    except KeyringError:  # none is running here: not an error, there are other ways
        return None


def remember_passphrase(name: str, passphrase: str | None) -> None:
    """Keep a passphrase in the OS keyring; None forgets it.

    Raises:
        MissingPrerequisite: the keyring package or a keyring is missing.
    """
    try:
        import keyring
        from keyring.errors import KeyringError, PasswordDeleteError
    except ImportError:
        raise MissingPrerequisite("the keyring package is not installed", "pip install 'minga[keyring]'") from None
    try:
        if passphrase is not None:
            keyring.set_password(SERVICE, name, passphrase)
        else:
            keyring.delete_password(SERVICE, name)
    except PasswordDeleteError:
        pass
    except KeyringError as error:
        raise MissingPrerequisite(f"no OS keyring can be used: {error}"[:200], "use MINGA_PASSPHRASE_FILE") from error
