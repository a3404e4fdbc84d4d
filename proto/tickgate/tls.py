"""What a TLS connection is made with, from PEM files."""

from __future__ import annotations

from pathlib import Path

import grpc


def read_credentials(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials | None:
    """Credentials for a client's `channel_credentials`; None, which is plain text, where no file is given.

    Args:
        authority: Certificates that the server's must be signed by; None: those that gRPC brings.
        certificate: This side's own, for a server that asks for one (mTLS); with `key`.
        key: Its private key.

    Raises OSError for a file that cannot be read, ValueError for a certificate without its key or a key without its
    certificate.
    """
    if authority is None and certificate is None and key is None:
        return None
    if (certificate is None) != (key is None):
        raise ValueError("a certificate and its key go together")
    return grpc.ssl_channel_credentials(
        root_certificates=authority.read_bytes() if authority else None,
        private_key=key.read_bytes() if key else None,
        certificate_chain=certificate.read_bytes() if certificate else None,
    )
