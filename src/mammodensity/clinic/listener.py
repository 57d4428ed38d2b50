"""Listen for DICOM associations: who may call, for how long a connection may be silent, and what is answered.

A node that accepts mammograms alone makes the sender's whole study fail, so every storage class is accepted.
"""

from __future__ import annotations

import threading
from select import select
from socketserver import BaseServer
from typing import Any

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from mammodensity.clinic.certificates import server_context, tls_reason
from mammodensity.clinic.commitment import Commitment
from mammodensity.clinic.config import ClinicConfig, Destination
from mammodensity.clinic.inbox import Inbox
from mammodensity.clinic.log import log
from mammodensity.errors import OutputError

_NOT_RECOGNISED = (0x01, 0x01, 0x03)  # rejected permanently by the user: calling AE title not recognised
_NOT_AUTHORISED = 0x0124
_REFUSALS = {3: "calling AE title", 7: "called AE title", 2: "too many associations"}
"""Diagnostics of A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
MOST_ASSOCIATIONS = 200  # idle connections must not keep an exam out
_POLL_S = 0.1
ACSE_TIMEOUT_S, NETWORK_TIMEOUT_S = 10, 60


class _Server(ThreadedAssociationServer):
    request_queue_size = 128
    tls: Any = None


class _Connection(RequestHandler):
    """A connection in a thread of its own: neither a slow TLS handshake nor half a PDU keeps others waiting."""

    def handle(self) -> None:
        self.request.settimeout(ACSE_TIMEOUT_S)
        context = self.server.tls  # type: ignore[attr-defined]
        if context is not None:
            try:
                self.request = context.wrap_socket(self.request, server_side=True)
            except OSError as error:
                log("refused-tls", address=self.client_address[0], reason=tls_reason(error))
                self.request.close()
                return
        if not select([self.request], [], [], ACSE_TIMEOUT_S)[0]:  # an association costs time, also when it is silent
            log("closed-silent", address=self.client_address[0])
            self.request.close()
            return
        self.request.settimeout(NETWORK_TIMEOUT_S)
        super().handle()


class Listener:
    """Takes associations, and hands objects to the inbox, requests and answers to storage commitment."""

    def __init__(self, config: ClinicConfig, inbox: Inbox, commitment: Commitment) -> None:
        self._config, self._inbox, self._commitment = config, inbox, commitment
        self._senders = {sender.ae_title for sender in config.senders}
        self._reporters = {
            place.ae_title for place in config.destinations if isinstance(place, Destination) and place.commitment
        }
        self._tls = server_context(config.tls) if config.tls and config.tls.dicom else None
        self._server: Any = None

    def start(self) -> int:
        """Listen; returns the port.

        Raises
        ------
        OutputError
            The port is taken, or the address is not this machine's.
        """
        entity = AE(ae_title=self._config.ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = sorted(self._senders | self._reporters) if self._senders else []
        entity.maximum_associations = MOST_ASSOCIATIONS
        entity.acse_timeout, entity.network_timeout = ACSE_TIMEOUT_S, NETWORK_TIMEOUT_S
        entity.add_supported_context(Verification)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_N_EVENT_REPORT, self._commitment.on_report),
            (evt.EVT_REJECTED, self._on_rejected),
        ]
        place = (self._config.bind, self._config.dicom_port)
        try:
            self._server = entity.make_server(
                place, evt_handlers=handlers, server_class=_Server, request_handler=_Connection
            )
        except OSError as error:
            raise cannot_listen(*place, error) from error
        self._server.tls = self._tls
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), daemon=True).start()
        return int(self._server.socket.getsockname()[1])

    def stop(self) -> None:
        """Take no more associations."""
        if self._server is not None:
            BaseServer.shutdown(self._server)
            self._server.server_close()

    def _on_request(self, event: Any) -> None:
        """Refuse a calling AE title that comes from an address other than its own."""
        title, address = _title(event), str(event.assoc.requestor.address)
        of_title = [sender for sender in self._config.senders if sender.ae_title == title]
        if of_title and not any(sender.is_at(address) for sender in of_title):
            log("refused", sender=title, address=address, reason="address")
            event.assoc.acse.send_reject(*_NOT_RECOGNISED)
            event.assoc.kill()

    @staticmethod
    def _on_rejected(event: Any) -> None:
        reason = _REFUSALS.get(event.assoc.acceptor.primitive.diagnostic)
        log("refused", sender=_title(event), address=event.assoc.requestor.address, reason=reason)

    def _on_store(self, event: Any) -> int:
        if not self._may_send(event):
            return _NOT_AUTHORISED
        return self._inbox.keep(event.encoded_dataset(), _title(event))

    def _on_action(self, event: Any) -> tuple[int, None]:
        return self._commitment.on_request(event) if self._may_send(event) else (_NOT_AUTHORISED, None)

    def _may_send(self, event: Any) -> bool:
        """False for a destination that may call only to confirm what it was sent."""
        return not self._senders or _title(event) in self._senders


def cannot_listen(address: str, port: int, error: OSError) -> OutputError:
    """The error for a port that is taken, or an address that is not this machine's."""
    return OutputError(f"cannot listen on {address}:{port}: {error.strerror}; choose another port")


def _title(event: Any) -> str:
    """The calling AE title."""
    return str(event.assoc.requestor.primitive.calling_ae_title).strip()
