"""Call other application entities, and pause between tries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pynetdicom import AE

from mammodensity.clinic.certificates import client_context, why_not_trusted
from mammodensity.clinic.config import Tls
from mammodensity.errors import OptionError

_CONNECT_S, _ANSWER_S = 10, 60
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 3600.0


class Peer(Protocol):
    """Who is called, and where."""

    @property
    def ae_title(self) -> str:
        """Its AE title."""

    @property
    def host(self) -> str:
        """Its host name or address."""

    @property
    def port(self) -> int:
        """Its port."""

    @property
    def tls(self) -> bool:
        """Whether it is called by TLS."""


def call(
    entity: AE, peer: Peer, tls: Tls | None, *, handlers: Sequence[Any] = (), roles: Sequence[Any] = ()
) -> tuple[Any, str]:
    """Open an association; returns it, or None and why there is none.

    Parameters
    ----------
    entity
        With the presentation contexts to propose.
    handlers, roles
        Event handlers and role selections of pynetdicom.
    """
    entity.connection_timeout = _CONNECT_S
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _ANSWER_S
    try:
        context = client_context(tls) if peer.tls else None  # anew for each call: certificates are renewed
    except OptionError as error:
        return None, str(error)
    association = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        ext_neg=list(roles),
        evt_handlers=list(handlers),
        tls_args=(context, peer.host) if context else None,
    )
    if association.is_established:
        return association, ""
    if association.is_rejected:
        return None, "it refused the association"
    return None, (why_not_trusted(context, peer.host, peer.port) if context else "") or "it does not answer"


def pause_s(tries: int) -> float:
    """The pause before the next try, in seconds: from seconds, doubled, to an hour."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(tries, 20), _LONGEST_PAUSE_S)
