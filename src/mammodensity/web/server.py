"""Serve the web application in a thread of the node's process."""

from __future__ import annotations

import socket
import threading

import uvicorn

from mammodensity.clinic.certificates import server_context
from mammodensity.clinic.listener import cannot_listen
from mammodensity.clinic.node import Node
from mammodensity.web.app import make_app


class WebServer:
    """Answers HTTP requests for a node.

    Parameters
    ----------
    node
        The node it answers for; its configuration names address and port.
    """

    def __init__(self, node: Node) -> None:
        self._place = (node.config.web.bind, node.config.web.port)
        config = uvicorn.Config(
            make_app(node),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            workers=1,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=30,
        )
        tls = node.config.tls
        self.scheme = "https" if tls and tls.web else "http"
        if tls and tls.web:
            config.load()
            config.ssl = server_context(tls)
        self._server = uvicorn.Server(config)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen; returns the port.

        Raises
        ------
        OutputError
            The port is taken, or the address is not this machine's.
        """
        try:
            self._socket = socket.create_server(self._place, family=_family(self._place[0]))
        except OSError as error:
            raise cannot_listen(*self._place, error) from error
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        return int(self._socket.getsockname()[1])

    def stop(self) -> None:
        """End what is answered now, and stop."""
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        if self._socket is not None:
            self._socket.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
