"""TLS for DICOM and HTTP, by the certificates that the configuration names."""

from __future__ import annotations

import socket
import ssl

from mammodensity.clinic.config import Tls
from mammodensity.errors import OptionError

_CONNECT_S = 10


def server_context(tls: Tls) -> ssl.SSLContext:
    """Settings of TLS for those who call: TLS 1.2 or later, and a certificate of the authority from each of them.

    Raises
    ------
    OptionError
        A file cannot be read, or certificate and key do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls)
    if tls.client_certificates:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls | None) -> ssl.SSLContext:
    """Settings of TLS for calling others: their certificate must be of the authority and name their host.

    Without an authority in the configuration, those that the system trusts count.

    Raises
    ------
    OptionError
        As above.
    """
    context = ssl.create_default_context()
    if tls and tls.authority:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls:
        _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except OSError as error:
        raise OptionError(
            f"tls: {tls.certificate} and {tls.key} cannot be used ({tls_reason(error)}); expected a certificate "
            "and its key without password, both as PEM"
        ) from error
    if tls.authority:
        try:
            context.load_verify_locations(tls.authority)
        except OSError as error:
            text = f"tls: {tls.authority} cannot be used ({tls_reason(error)}); expected certificates as PEM"
            raise OptionError(text) from error


def tls_reason(error: OSError) -> str:
    """Say in a few words why a TLS connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "no TLS").replace("_", " ").lower()
    return error.strerror or type(error).__name__


def why_not_trusted(context: ssl.SSLContext, host: str, port: int) -> str:
    """Say why a connection to this place is not made; blank where it is."""
    try:
        with (
            socket.create_connection((host, port), _CONNECT_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return ""
    except OSError as error:
        return f"TLS: {tls_reason(error)}" if isinstance(error, ssl.SSLError) else ""
