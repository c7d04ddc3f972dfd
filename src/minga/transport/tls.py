"""A provider's TLS identity: a self-signed certificate, believed for its fingerprint alone.

The fingerprint (SHA-256 of the certificate's DER) stands in the provider's signed terms, so no authority vouches for
the key and none can. Knows: making and loading an identity, and a client context that accepts exactly one
certificate. Does not know: names and dates; a pinned certificate has neither meaning.
"""

from __future__ import annotations

import datetime
import hmac
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from minga.core.crypto import sha256_hex

_YEARS = 30


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """Files of a certificate and its key (PEM), and the fingerprint (64 hex digits)."""

    certificate: Path
    key: Path
    sha256: str


def create_identity(folder: Path, now: int) -> TlsIdentity:
    """The identity kept in `folder`; made (P-256, mode 0600) when it is not there. Blocking.

    Args:
        folder: where `tls.pem` and `tls.key` stand.
        now: Unix seconds, the start of a new certificate's validity.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate, key = folder / "tls.pem", folder / "tls.key"
    if not (certificate.is_file() and key.is_file()):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(certificate, key, now)
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    return TlsIdentity(certificate, key, sha256_hex(parsed.public_bytes(Encoding.DER)))


def pinned_context(sha256: str) -> ssl.SSLContext:
    """A client context that shakes hands with the holder of one certificate and nobody else.

    Args:
        sha256: the certificate's fingerprint, 64 hex digits.
    """

    def check(connection: ssl.SSLObject | ssl.SSLSocket) -> None:
        found = sha256_hex(connection.getpeercert(binary_form=True) or b"")
        if not hmac.compare_digest(found, sha256):
            raise ssl.SSLCertVerificationError(f"the certificate {found[:16]}… is not the one in the signed terms")

    class Pinned(ssl.SSLObject):
        """A connection that checks the certificate before a byte of ours is sent."""

        def do_handshake(self) -> None:
            super().do_handshake()
            check(self)

    class PinnedSocket(ssl.SSLSocket):
        """The same for sockets that block."""

        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslobject_class = Pinned
    context.sslsocket_class = PinnedSocket
    return context


def _make(certificate: Path, key: Path, now: int) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "minga provider")])
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(days=1)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * _YEARS))
        .sign(secret, SHA256())
    )
    _write(key, secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(certificate, built.public_bytes(Encoding.PEM))


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
