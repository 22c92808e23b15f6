"""A certificate authority of this machine's own, for `emberbox up --tls`.

It may sign names below one domain only (name constraints), so that whoever trusts it does not
trust its key for anything else.
"""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from emberbox.shared.sidefile import write_atomically

_DAY = dt.timedelta(days=1)
_CA_LIFE = 3650 * _DAY
_LIFE = 397 * _DAY
"""Browsers take no certificate that lives longer."""
_RENEWED_BEFORE = 30 * _DAY
_DEBIANS = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class LocalCertificate:
    """Files under the state directory. `bundle` has the system's authorities too."""

    directory: Path

    @property
    def authority(self) -> Path:
        """What clients are to trust."""
        return self.directory / "ca.pem"

    @property
    def bundle(self) -> Path:
        """The same with all that this machine trusts anyway, for SSL_CERT_FILE and the like."""
        return self.directory / "trusted.pem"

    @property
    def chain(self) -> Path:
        """What the client proxy shows."""
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        """The key of `chain` (0600)."""
        return self.directory / "cert.key"

    @property
    def _authority_key(self) -> Path:
        return self.directory / "ca.key"

    def ensure(self, domain: str) -> bool:
        """Make what is missing, for another domain, or about to expire; whether the authority is
        new, so that clients have to be told."""
        self.directory.mkdir(parents=True, exist_ok=True)
        authority = _read(self.authority)
        new = authority is None or _is_old(authority) or not _permits(authority, domain)
        if new or not self._authority_key.exists():
            authority = self._make_authority(domain)
        certificate = _read(self.chain)
        if new or certificate is None or _is_old(certificate) or not self.key.exists():
            self._make_certificate(domain, _certain(authority))
        self._write_bundle()
        return new

    def _make_authority(self, domain: str) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"Emberbox local CA for {domain}")]
        )
        only = x509.NameConstraints(
            permitted_subtrees=[x509.DNSName(domain)], excluded_subtrees=None
        )
        certificate = (
            _begin(name, name, key, _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(only, critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_atomically(self._authority_key, _private(key), 0o600)
        write_atomically(self.authority, _public(certificate), 0o644)
        return certificate

    def _make_certificate(self, domain: str, authority: x509.Certificate) -> None:
        signer = serialization.load_pem_private_key(self._authority_key.read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 - as we made it
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(f"*.{domain}"), x509.DNSName(domain)])
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        certificate = (
            _begin(x509.Name([]), authority.subject, key, _LIFE)
            .add_extension(names, critical=True)
            .add_extension(server, critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .sign(signer, hashes.SHA256())
        )
        # The proxy reads both again when either changes, and keeps the old ones until they fit.
        write_atomically(self.key, _private(key), 0o600)
        write_atomically(self.chain, _public(certificate), 0o644)

    def _write_bundle(self) -> None:
        system = ssl.get_default_verify_paths().cafile or _DEBIANS
        known = Path(system).read_bytes() if Path(system).exists() else b""
        write_atomically(self.bundle, known + b"\n" + self.authority.read_bytes(), 0o644)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _is_old(certificate: x509.Certificate) -> bool:
    now = dt.datetime.now(dt.UTC)
    return certificate.not_valid_after_utc - now < _RENEWED_BEFORE


def _permits(authority: x509.Certificate, domain: str) -> bool:
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    return constraints.permitted_subtrees == [x509.DNSName(domain)]


def _certain(authority: x509.Certificate | None) -> x509.Certificate:
    assert authority is not None  # noqa: S101 - there was one, or it was made
    return authority


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
