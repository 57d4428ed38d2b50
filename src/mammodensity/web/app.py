"""The web application of the node."""

from __future__ import annotations

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mammodensity import __version__
from mammodensity.clinic.node import Node
from mammodensity.web.metrics import NodeCollector

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


def make_app(node: Node) -> FastAPI:
    """The application that answers for a node.

    A request must name this machine as its host: a page of another site cannot reach the node under a name of its own.
    """
    app = FastAPI(title="mammodensity", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_THIS_MACHINE))
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
