"""The way to the cloud: one session for the service account, one for each project that has let it in."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import openstack
from keystoneauth1.exceptions import ClientException
from keystoneauth1.exceptions.auth import AuthorizationFailure
from keystoneauth1.exceptions.catalog import CatalogException
from keystoneauth1.exceptions.connection import ConnectFailure
from keystoneauth1.exceptions.http import Unauthorized
from openstack.connection import Connection
from openstack.exceptions import ConfigException, HttpException, SDKException
from requests import Response

from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.domain.errors import BackendFailed, Conflict, Invalid, MissingPart, NotFound, Refused, TorporError

log = logging.getLogger(__name__)

COMPUTE = "2.90"
"""Microversion of Nova that is spoken: Zed's client stops at 2.92. 2.74 boots on a host by name, 2.73 tells why a
server is locked, 2.90 sets its hostname."""
Document = dict[str, Any]
Service = Literal["compute", "image", "network", "placement", "identity"]
Query = Mapping[str, str | int]


class Cloud:
    """Thread-safe. Nothing is opened before it is needed; what is asked raises TorporErrors."""

    def __init__(self, settings: OpenStackSettings) -> None:
        self.settings = settings
        self.everybodys = True
        """Whether the account may list other projects' servers, as far as is known."""
        self._lock = threading.Lock()
        self._own: Connection | None = None
        self._projects: dict[str, Connection] = {}

    @property
    def own(self) -> Connection:
        """As the service account in its own project. Raises MissingPart."""
        with self._lock:
            if self._own is None:
                self._own = self._connect()
            return self._own

    def project(self, id: str) -> Connection:
        """As the service account in that project, which must have given it a role."""
        own = self.own
        with self._lock, translated("the project can't be entered"):
            if id not in self._projects:
                self._projects[id] = own.connect_as_project({"id": id})
            return self._projects[id]

    def projects(self) -> dict[str, str]:
        """Name by id, of the projects that have let the service account in; its own is not one of them."""
        listed = self.ask("identity", "GET", "/auth/projects", "Keystone can't be asked for projects")["projects"]
        own = self.own.current_project_id
        return {each["id"]: each["name"] for each in listed if each["id"] != own}

    def find_project(self, name: str) -> tuple[str, str]:
        """(id, name) of a project that has let Torpor in, by either. Raises NotFound, Invalid."""
        wanted = name or self.settings.project
        open_ones = self.projects()
        if not wanted and len(open_ones) == 1:
            return next(iter(open_ones.items()))
        if not wanted:
            raise Invalid(
                "it is not said which project the servers are to belong to",
                detail=f"there are {', '.join(sorted(open_ones.values())) or 'none that have let Torpor in'}",
                remedy="say --project, or set openstack.project",
            )
        found = [(id, known) for id, known in open_ones.items() if wanted in (id, known)]
        if not found:
            raise NotFound(
                f"project {wanted!r} is closed to Torpor",
                detail="its service account has no role there",
                remedy="give it one: see docs/how-to/run-torpor-on-openstack.md",
            )
        return found[0]

    def compute(
        self, method: str, path: str, what: str, body: Document | None = None, query: Query | None = None
    ) -> Document:
        """Ask Nova as the service account; `what` says what does not happen if it fails."""
        return self.ask("compute", method, path, what, body, COMPUTE, query)

    def ask(
        self,
        service: Service,
        method: str,
        path: str,
        what: str,
        body: Document | None = None,
        microversion: str | None = None,
        query: Query | None = None,
        project: str = "",
    ) -> Document:
        """Ask a service, in that project or in the service account's own; the answer's document, empty where there is
        none. `what` says what does not happen if it fails.

        What only looks, and what is harmless twice, is asked again after a lost connection.
        """
        connection = self.project(project) if project else self.own
        asked_at = time.monotonic()
        with translated(what):
            answer: Response = getattr(connection, service).request(
                path,
                method,
                json=body,
                microversion=microversion,
                params=dict(query or {}),
                connect_retries=3 if method in ("GET", "PUT", "DELETE") else 0,
            )
        log.debug("%s %s: %d in %.0f ms", method, path, answer.status_code, (time.monotonic() - asked_at) * 1000)
        return _read(answer, what)

    def _connect(self) -> Connection:
        cloud = self.settings.cloud
        try:
            made = openstack.connect(cloud=cloud)
            made.authorize()
        except (ConfigException, FileNotFoundError) as error:
            raise MissingPart(
                f"cloud {cloud!r} can't be reached",
                detail=_line(error),
                remedy="describe it in clouds.yaml, and set openstack.cloud to its name there",
            ) from error
        except (SDKException, ClientException) as error:
            raise _translate(f"cloud {cloud!r} can't be reached", error) from error
        return made


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise what openstacksdk says as a TorporError; `what` names what does not happen then."""
    try:
        yield
    except (SDKException, ClientException) as error:
        raise _translate(what, error) from error


def _read(answer: Response, what: str) -> Document:
    if answer.status_code >= 400:
        raise failure_of(what, answer.status_code, words_of(answer))
    if not answer.content:
        return {}
    document: Document = answer.json()
    return document


def failure_of(what: str, status: int, detail: str) -> TorporError:
    if status == 404:
        return NotFound(what, detail=detail)
    if status == 403 and "quota" in detail.lower():
        return Refused(what, detail=detail, remedy="delete something, or have the project's quota raised")
    if status == 403:
        return MissingPart(
            what, detail=detail, remedy="give Torpor's account its roles: see docs/how-to/run-torpor-on-openstack.md"
        )
    if status == 409:
        return Conflict(what, detail=detail, remedy="see what else is going on with it")
    return BackendFailed(what, detail=detail)


def words_of(answer: Response) -> str:
    """The service's own words, on one line."""
    try:
        document = answer.json()
    except ValueError:
        return f"HTTP {answer.status_code}"
    if isinstance(document, dict) and isinstance(document.get("errors"), list):
        return "; ".join(_flat(each.get("detail") or each.get("title")) for each in document["errors"])
    inner = next((v for v in document.values() if isinstance(v, dict)), {}) if isinstance(document, dict) else {}
    return _flat(inner.get("message") or f"HTTP {answer.status_code}")


def _translate(what: str, error: Exception) -> TorporError:
    if isinstance(error, HttpException) and error.status_code:
        return failure_of(what, error.status_code, _flat(error.details or error))
    if isinstance(error, Unauthorized | AuthorizationFailure | CatalogException):
        return MissingPart(what, detail=_line(error), remedy="check the account in clouds.yaml and its roles")
    if isinstance(error, ConnectFailure):
        return BackendFailed(what, detail=_line(error), remedy="see that the cloud's APIs are up")
    return BackendFailed(what, detail=_line(error))


def _line(error: Exception) -> str:
    return _flat(error)


def _flat(text: object) -> str:
    return " ".join(str(text).split())[:500].rstrip(".")
