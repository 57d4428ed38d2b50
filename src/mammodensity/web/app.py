"""The web application of the node."""

from __future__ import annotations

from base64 import b64decode
from hmac import compare_digest

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mammodensity import __version__
from mammodensity.clinic.config import THIS_MACHINE, read_secret
from mammodensity.clinic.log import log
from mammodensity.clinic.node import Node
from mammodensity.web.metrics import NodeCollector
from mammodensity.web.receive import receiving


def make_app(node: Node) -> FastAPI:
    """The application that answers for a node.

    A request must name this machine as its host, by a name that is configured: a page of another site cannot reach the
    node under a name of its own.

    Raises
    ------
    OptionError
        The token cannot be read.
    """
    web = node.config.web
    token = read_secret(web.token) if web.token else ""

    def require_token(request: Request) -> None:
        if token and request.url.path != "/health" and not is_authorized(request.headers.get("authorization"), token):
            log("refused", address=request.client and request.client.host, reason="token")
            raise HTTPException(401, "expected the token of the configuration", {"WWW-Authenticate": "Bearer"})

    app = FastAPI(
        title="mammodensity",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(require_token)],
    )
    addresses = [*THIS_MACHINE, web.bind] if web.bind else THIS_MACHINE
    hosts = [f"[{address}]" if ":" in address else address for address in addresses]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts, *web.names])
    if web.stow:
        app.include_router(receiving(node))
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))

    @app.get("/health")
    def health(response: Response) -> dict[str, object]:
        """Whether the node can take, read and deliver exams, and if not, why: status 200 or 503."""
        problems = node.problems()
        response.status_code = 503 if problems else 200
        return {"status": "failing" if problems else "ok", "problems": problems}

    @app.get("/metrics")
    def metrics() -> Response:
        """Counts of exams, images, deliveries and workers, in the text format of Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def is_authorized(header: str | None, token: str) -> bool:
    """True for the token as bearer, or as the password of any user."""
    kind, _, value = (header or "").partition(" ")
    if kind.lower() == "basic":
        try:
            value = b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif kind.lower() != "bearer":
        return False
    return compare_digest(value.strip().encode(), token.encode())
