"""`up --tls`: the certificate, and what a person has to be told about it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from emberbox.cli.local_ca import LocalCertificate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emberbox.cli.options import Options


def prepare_tls(options: Options, say: Callable[[str], None]) -> None:
    """Make or renew the certificate; say what a person has to do before names can be used."""
    domain = options.tls_domain
    if not _own_certificate() and _local(options).ensure(domain):
        say(f"made a certificate authority for {domain}: {_local(options).authority}")
    if not _resolves(f"check.{domain}"):
        say(
            f"names below {domain} do not resolve here, other than in browsers and curl: "
            "apt-get install libnss-myhostname"
            if domain.endswith(".localhost")
            else f"names below {domain} do not resolve here: add *.{domain} to your DNS"
        )


def tls_flags(options: Options) -> list[str]:
    """What the client proxy is told."""
    port = ["--tls-port", str(options.tls_port)]
    if _own_certificate():
        return port
    local = _local(options)
    return [*port, "--tls-cert", str(local.chain), "--tls-key", str(local.key)]


def authority(options: Options) -> Path | None:
    """The file that clients are to trust; None with a certificate of the operator's."""
    return None if _own_certificate() else _local(options).authority


def how_to_trust(options: Options) -> list[str]:
    """Lines for a shell."""
    lines = [f"# https://PORT-SANDBOXID.{options.told_domain}"]
    if _own_certificate():
        return lines
    local = _local(options)
    return [
        *lines,
        f"# trusted with: curl --cacert {local.authority}; for all programs of this machine:",
        f"#   cp {local.authority} /usr/local/share/ca-certificates/emberbox.crt",
        "#   update-ca-certificates",
        "# for programs started from this shell, Node.js among them:",
        f"export SSL_CERT_FILE={local.bundle}",
        f"export REQUESTS_CA_BUNDLE={local.bundle}",
        f"export NODE_EXTRA_CA_CERTS={local.authority}",
    ]


def _local(options: Options) -> LocalCertificate:
    return LocalCertificate(options.home.tls)


def _own_certificate() -> bool:
    """Whether the operator has set one."""
    return bool(os.environ.get("EMBERBOX_PROXY_TLS_CERT"))


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True
