"""The configuration of the node: one TOML file, checked as a whole before anything starts."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from mammodensity.errors import OptionError
from mammodensity.settings import Field, settings


def _require_title(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]{1,16}", text):
        raise ValueError("1 to 16 letters, digits or signs, without spaces and backslashes")
    return text


Title = Annotated[str, AfterValidator(_require_title)]
"""An AE title (PS3.5 6.2, of visible characters)."""
Port = Annotated[int, Field(ge=0, le=65535)]
THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
Seconds = Annotated[float, Field(ge=0, le=7 * 86400)]


@settings
class Sender:
    """An application entity that may send images."""

    ae_title: Title
    address: str = ""
    """Its address, or a network such as ``10.0.0.0/24``; blank for any."""
    report_port: Port = 0
    """Where it takes answers to storage commitment, on associations of their own; 0: on that by which it asked."""
    report_host: str = ""
    """The host for that; blank for the address from which it asked."""
    report_tls: bool = False

    def __post_init__(self) -> None:
        try:
            ip_network(self.address or "::", strict=False)
        except ValueError:
            text = f"address must be an IP address or a network such as 10.0.0.0/24. Got {self.address!r} instead."
            raise OptionError(text) from None

    def is_at(self, address: str) -> bool:
        """True for an address that this sender may call from."""
        return not self.address or is_within(address, self.address)


@settings
class Destination:
    """A PACS that results are sent to."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    ae_title: Title
    host: Annotated[str, Field(min_length=1)]
    port: Port
    sr: Literal["comprehensive3d", "comprehensive", "enhanced"] = "comprehensive3d"
    """The class of reports that it takes."""
    tls: bool = False
    """Send by TLS; its certificate must name the host."""
    commitment: bool = False
    """Ask for storage commitment; an object counts as delivered when that is given."""
    commitment_wait_s: Seconds = 600.0
    """Time after which it is asked again."""
    kind: Literal["dicom"] = "dicom"


Secret = Annotated[str, Field(pattern=r"^$|^(file|env):.+")]
"""A password or token: ``file:`` and the file that holds it, or ``env:`` and the variable of the environment."""


def read_secret(secret: str) -> str:
    """Read a password or token.

    Raises
    ------
    OptionError
        The file cannot be read, the variable is not set, or there is nothing in it.
    """
    kind, _, name = secret.partition(":")
    try:
        value = os.environ.get(name, "") if kind == "env" else Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise OptionError(f"{secret} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not value.strip() or not value.strip().isprintable():
        raise OptionError(f"{secret} must hold one line of text")
    return value.strip()


@settings
class StowDestination:
    """A server that results are sent to by STOW-RS."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    """The root of its DICOMweb services; objects go to ``URL/studies``."""
    sr: Literal["comprehensive3d", "comprehensive", "enhanced"] = "comprehensive3d"
    """The class of reports that it takes."""
    user: str = ""
    password: Secret = ""
    token: Secret = ""
    """A bearer token, in place of user and password."""
    kind: Literal["stow"] = "stow"

    def __post_init__(self) -> None:
        if self.token and self.password:
            raise OptionError("token and password exclude each other")
        place = urlsplit(self.url)
        if (self.token or self.password) and place.scheme == "http" and place.hostname not in THIS_MACHINE:
            raise OptionError("url must begin with https:// so that nobody reads the password or token on the way")


@settings
class Tls:
    """Certificates: of the node, and of who may call it."""

    certificate: str
    """A PEM file: the certificate of the node, then those up to the authority."""
    key: str
    """A PEM file: its key, without password."""
    authority: str = ""
    """A PEM file: who signs the certificates of senders and destinations; blank for those that the system trusts."""
    client_certificates: bool = True
    """Who calls must show a certificate of the authority."""
    dicom: bool = True
    """The DICOM port speaks TLS."""
    web: bool = True
    """The HTTP port speaks TLS."""

    def __post_init__(self) -> None:
        if self.client_certificates and not self.authority:
            raise OptionError("authority is needed, or client_certificates = false")


@settings
class Web:
    """The HTTP side."""

    port: Port = 8080
    """0 for any free port."""
    bind: str = "127.0.0.1"
    """The address to listen on; empty for all."""
    names: tuple[str, ...] = ()
    """Host names by which other machines call it."""
    token: Secret = ""
    """Who calls must send it, as bearer token or as password; blank on this machine only."""
    insecure: bool = False
    """Listen for other machines without TLS: only behind a proxy that speaks TLS."""
    stow: bool = False
    """Take objects by STOW-RS, at ``/dicom-web/studies``."""
    most_mb: Annotated[int, Field(ge=1, le=2000)] = 512
    """The largest object that is taken."""


@settings
class ClinicConfig:
    """How the node receives, reads and delivers exams."""

    ae_title: Title = "MAMMODENSITY"
    """The node's own; who calls must call it so."""
    bind: str = "127.0.0.1"
    """The address to listen on; empty for all."""
    dicom_port: Port = 11112
    """0 for any free port."""
    senders: tuple[Sender, ...] = ()
    """Who may send; empty: any calling AE title, which is allowed on loopback only."""
    destinations: tuple[Destination | StowDestination, ...] = ()
    """Where results go: tables of their own."""
    web: Web = Web()
    """The HTTP side: a table of its own."""
    tls: Tls | None = None
    """Certificates: a table of its own."""
    database: str = ""
    """A URL of SQLAlchemy, such as ``postgresql+psycopg://...``; blank for a SQLite file in the data folder."""
    model: str = ""
    """A model folder; blank for the default model."""
    synthetic: bool = False
    """Accept 2-D images computed from tomosynthesis."""
    settle_s: Seconds = 20.0
    """Silence after which an exam with four views is read."""
    settle_incomplete_s: Seconds = 900.0
    """Silence after which an exam with fewer views is read or waits."""
    incomplete: Literal["read", "wait"] = "read"
    """An exam with fewer than four views: read it, with a flag, or wait for the rest."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that read exams, each with one thread."""
    lease_s: Annotated[float, Field(ge=5, le=86400)] = 300.0
    """Time for which a worker has an exam; after that another may take it."""
    most_tries: Annotated[int, Field(ge=1, le=100)] = 3
    """Workers that may die over one exam before it has failed."""
    give_up_days: Annotated[float, Field(gt=0, le=365)] = 7.0
    """How long an object is sent again and again to a PACS that does not answer."""
    keep_images_days: Annotated[float, Field(ge=0, le=36500)] = 0.0
    """How long images and cards of an exam are kept after its result was delivered; 0: for ever."""
    least_free_gb: Annotated[float, Field(ge=0)] = 1.0
    """Free space below which the node refuses images."""

    def __post_init__(self) -> None:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) < len(names):
            raise OptionError("destinations must have different names")
        if self.web.bind not in THIS_MACHINE:
            if not self.web.token:
                raise OptionError("web: token is needed when the node listens for HTTP from other machines")
            if not (self.web.insecure or (self.tls and self.tls.web)):
                raise OptionError("web: [tls] is needed when the node listens for HTTP from other machines")
        if not self.senders and self.bind not in THIS_MACHINE:
            raise OptionError(f"senders is needed when the node listens on {self.bind or 'all addresses'}: list them")


def is_within(address: str, network: str) -> bool:
    """True for an address in a network; an IPv4 address may be written as IPv6."""
    place = ip_address(address.partition("%")[0])
    place = getattr(place, "ipv4_mapped", None) or place
    return place in ip_network(network, strict=False)


def read_config(path: Path) -> ClinicConfig:
    """Read the configuration from a TOML file.

    Raises
    ------
    OptionError
        The file cannot be read, or a setting is unknown or out of range.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        _resolve_files(content, path.parent)
        return config_from(content)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    except UnicodeDecodeError:
        problem = "it is no text in UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"it is no TOML ({error}); docs/clinic.md has an example"
    except OptionError as error:
        problem = str(error)
    raise OptionError(f"{path} cannot be used as configuration: {problem}")


def _resolve_files(content: dict[str, Any], folder: Path) -> None:
    """Take names of files as relative to the folder of the configuration."""
    tables = [content.get("tls"), content.get("web"), *_tables(content.get("destinations"))]
    for table in (table for table in tables if isinstance(table, dict)):
        for name, value in table.items():
            if name in ("certificate", "key", "authority") and isinstance(value, str) and value:
                table[name] = str(folder / value)
            elif name in ("password", "token") and isinstance(value, str) and value.startswith("file:"):
                table[name] = f"file:{folder / value[5:]}"


def _tables(items: Any) -> list[Any]:
    return items if isinstance(items, list) else []


def config_from(content: Mapping[str, Any]) -> ClinicConfig:
    """The configuration with these values, as TOML or JSON hold them."""
    values = dict(content)
    if "senders" in values:
        values["senders"] = tuple(_item("senders", Sender, item) for item in _listed("senders", values["senders"]))
    if "destinations" in values:
        items = _listed("destinations", values["destinations"])
        values["destinations"] = tuple(
            _item("destinations", StowDestination if item.get("kind") == "stow" else Destination, item)
            for item in items
        )
    for name, table in (("web", Web), ("tls", Tls)):
        if values.get(name) is not None:
            values[name] = _item(name, table, values[name])
    for field in fields(ClinicConfig):  # TOML tells 20 from 20.0
        if isinstance(field.default, float) and type(values.get(field.name)) is int:
            values[field.name] = float(values[field.name])
    return ClinicConfig(**values)


def _listed(name: str, items: Any) -> list[Any]:
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, Mapping) for item in items):
        raise OptionError(f"{name} must be tables: write [[{name}]] above each")
    return list(items)


def _item(name: str, kind: Any, item: Any) -> Any:
    if not isinstance(item, Mapping):
        raise OptionError(f"{name} must be a table: write [{name}] above its settings")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in item.items()})
    except OptionError as error:
        raise OptionError(f"{name}: {error}") from error
