"""Commands for a screening unit: objects for its PACS, and the node that exchanges images and results with it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mammodensity.commands.options import AllowMissing, Device, Exams, ModelOrDefault, Synthetic
from mammodensity.commands.reading import show_results
from mammodensity.commands.show import (
    how_many,
    progress_bar,
    say,
    say_each,
    say_research_use_only,
    show_table,
)
from mammodensity.errors import LayoutError, OptionError
from mammodensity.outputs import require_apart
from mammodensity.stopping import ignore_signals

if TYPE_CHECKING:
    from mammodensity.clinic.config import ClinicConfig
    from mammodensity.clinic.database import Database

_LIBRARIES = ("highdicom", "fhir", "pynetdicom", "sqlalchemy", "fastapi", "python_multipart", "prometheus_client")


def dicom(
    data: Exams,
    output: Annotated[Path, typer.Option("--output", help="Name the folder to write to.", metavar="DIR")],
    model: ModelOrDefault = None,
    sr: Annotated[
        Literal["comprehensive3d", "comprehensive", "enhanced"],
        typer.Option("--sr", help="Choose the class of the report; some receivers do not take Comprehensive 3D SR."),
    ] = "comprehensive3d",
    seg: Annotated[bool, typer.Option("--seg", help="Also write a segmentation of each view.")] = False,
    fhir: Annotated[bool, typer.Option("--fhir", help="Also write a FHIR DiagnosticReport.")] = False,
    allow_missing: AllowMissing = False,
    synthetic: Synthetic = False,
    device: Device = "auto",
) -> None:
    """Write the result of exams as DICOM: a structured report, and a card with the four views.

    The objects belong to the study of the images, and carry its patient. The same images, model and version give
    objects with the same UIDs.

    Example: mammodensity dicom exam --output objects
    """
    _require_libraries()
    from mammodensity.clinic.objects import dicom_objects

    for path in data:
        require_apart(output, path)
    with progress_bar("dicom") as progress:
        made = dicom_objects(
            data,
            model=model,
            output=output,
            sr=sr,
            seg=seg,
            fhir=fhir,
            allow_missing=allow_missing,
            synthetic=synthetic,
            device=device,
            progress=progress,
        )
    say_each("refused", (text for objects in made for text in objects.result.refused.values()))
    show_results([objects.result for objects in made])
    say(f"{how_many(sum(len(objects.objects) for objects in made), 'object')} in {output}")
    say_research_use_only()


def serve(
    data: Annotated[Path, typer.Option("--data", help="Name the folder of the node: images and database.")],
    config: Annotated[Path | None, typer.Option("--config", help="Read the configuration, a TOML file.")] = None,
    dicom_port: Annotated[
        int | None, typer.Option("--dicom-port", help="Listen on this port; 0: a free one.", min=0, max=65535)
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Answer HTTP requests on this port; 0: a free one.", min=0, max=65535)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Tell what the node would do, connect to its database, and stop.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="List exams and deliveries, and stop.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what is held or has failed, and stop.")] = False,
) -> None:
    """Receive exams by DICOM, read them, and send the results to a PACS.

    Log lines on standard error are JSON, without patient data. Ctrl-C or SIGTERM stops the node; it goes on where it
    was when it is started again.

    Example: mammodensity serve --data node --config node.toml
    """
    _require_libraries()
    from dataclasses import replace

    from mammodensity.clinic.config import ClinicConfig, read_config
    from mammodensity.clinic.database import DATABASE_FILE, Database, database_url, require_database

    settings = read_config(config) if config else ClinicConfig()
    if dicom_port is not None:
        settings = replace(settings, dicom_port=dicom_port)
    if port is not None:
        settings = replace(settings, web=replace(settings.web, port=port))
    url = database_url(settings.database, data)
    if check:
        if settings.database or data.exists():
            require_database(url)
        for line in _described(settings, data):
            say(line)
    elif status or retry:
        if not settings.database and not (data / DATABASE_FILE).is_file():
            raise LayoutError(f"{data} holds no {DATABASE_FILE}; give the folder of a node that was started before")
        database = Database(url)
        if retry:
            say(f"{database.retry(time.time())} tried again")
        if status:
            _show_status(database)
        database.close()
    else:
        _serve(settings, data)
        return
    say_research_use_only()


def _serve(settings: ClinicConfig, data: Path) -> None:
    from mammodensity.clinic.node import Node
    from mammodensity.web.server import WebServer

    node = Node(settings, data)
    web = WebServer(node)
    try:
        web_port = web.start()
        port = node.start()
        say(f"DICOM: {settings.ae_title} at {settings.bind or 'all addresses'}, port {port}")
        pages = "/health, /metrics" + (", /dicom-web/studies" if settings.web.stow else "")
        say(f"web: {web.scheme}://{settings.web.bind or 'all addresses'}:{web_port}{pages}")
        say_research_use_only()
        threading.Event().wait()
    except KeyboardInterrupt:
        ignore_signals()  # a second one must not keep the node from stopping in order
        say("stopped; the node goes on from here when it is started again")
    finally:
        web.stop()
        node.stop()


def _described(settings: ClinicConfig, data: Path) -> Iterator[str]:
    """Say what a node with these settings does."""
    from mammodensity.clinic.certificates import client_context, server_context
    from mammodensity.clinic.config import StowDestination, read_secret

    secured = ""
    if settings.tls:
        server_context(settings.tls)
        client_context(settings.tls)
        secured = " with TLS" if settings.tls.dicom else ""
    place = f"{settings.bind or 'all addresses'}, port {settings.dicom_port}{secured}"
    yield f"listens as {settings.ae_title} on {place}"
    if settings.web.token:
        read_secret(settings.web.token)
    taken = ", and takes objects by STOW-RS" if settings.web.stow else ""
    yield f"answers HTTP on {settings.web.bind or 'all addresses'}, port {settings.web.port}{taken}"
    senders = ", ".join(f"{sender.ae_title} ({sender.address or 'any address'})" for sender in settings.senders)
    yield f"answers /health and /metrics on {settings.web.bind}, port {settings.web.port}"
    yield f"takes images from {senders or 'any AE title, on this machine only'}"
    yield f"reads an exam with four views {settings.settle_s:g} s after its last image; workers: {settings.workers}"
    fewer = f"reads it after {settings.settle_incomplete_s:g} s, with a flag"
    yield f"an exam with fewer views: {fewer if settings.incomplete == 'read' else 'waits for the rest'}"
    yield f"model: {settings.model or 'the default model'}"
    for destination in settings.destinations:
        if isinstance(destination, StowDestination):
            place, confirmed = destination.url, ""
        else:
            secured = " with TLS" if destination.tls else ""
            place = f"{destination.ae_title} at {destination.host}, port {destination.port}{secured}"
            confirmed = ", and asks for storage commitment" if destination.commitment else ""
        yield f"sends results to {destination.name}: {place}, {destination.sr} SR{confirmed}"
    if not settings.destinations:
        yield "sends results nowhere: the configuration names no destination"
    days = settings.keep_images_days
    yield f"keeps results in {data}, and images {f'{days:g} days after delivery' if days else 'for ever'}"


def _show_status(database: Database) -> None:
    from mammodensity.clinic.inbox import name_of

    exams = database.exams()
    rows = [[name_of(exam["study_uid"]), exam["state"], str(exam["revision"] or 0), exam["reason"]] for exam in exams]
    show_table(["exam", "state", "results", "reason"], rows)
    unused = Counter((name_of(image["study_uid"]), image["code"]) for image in database.unused())
    if unused:
        rows = [[exam, code, str(count)] for (exam, code), count in unused.items()]
        show_table(["exam", "objects not used: why", "how many"], rows)
    left = [delivery for delivery in database.deliveries() if not delivery["done"]]
    rows = [[d["destination"], d["kind"], d["state"], str(d["tries"]), d["reason"]] for d in left]
    if rows:
        show_table(["destination", "object", "state", "tries", "reason"], rows)


def _require_libraries() -> None:
    absent = [name for name in _LIBRARIES if find_spec(name) is None]
    if absent:
        raise OptionError(
            f"{', '.join(absent)} is not installed; install the extra: pip install 'mammodensity[clinic]'"
        )
