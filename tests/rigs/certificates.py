"""A certificate authority of a rig's own, and certificates of servers here: good, expired, for another name."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HERE = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
_ELSEWHERE = (x509.DNSName("elsewhere.invalid"),)
_DAY = timedelta(days=1)


class Authority:
    """Writes `ca.pem`, and NAME.crt and NAME.key of servers, into a folder."""

    def __init__(self, folder: Path) -> None:
        self.ca_file = folder / "ca.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("rig's authority")
        builder = self._certificate(self._name, self._key, datetime.now(UTC) - _DAY)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def make_servers(self) -> None:
        """good, expired and wrong-name."""
        now = datetime.now(UTC)
        self._make("good", _HERE, now - _DAY)
        self._make("expired", _HERE, now - 400 * _DAY)
        self._make("wrong-name", _ELSEWHERE, now - _DAY)

    def _make(self, name: str, names: tuple[x509.GeneralName, ...], since: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._certificate(_named(f"rig's {name}"), key, since)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self._write(f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        private = serialization.PrivateFormat.PKCS8
        self._write(f"{name}.key", key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime
    ) -> x509.CertificateBuilder:
        """Valid for a year from `since` on."""
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(since).not_valid_after(since + 365 * _DAY)

    def _write(self, name: str, content: bytes) -> None:
        file = self._folder / name
        file.touch(mode=0o600)
        file.write_bytes(content)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
