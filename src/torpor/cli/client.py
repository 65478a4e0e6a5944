"""HTTP over the daemon's unix socket."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from torpor.cli.problems import error_of
from torpor.domain.errors import DaemonUnreachable, MissingPart, NotFound

Document = dict[str, Any]
PATIENCE = 180.0
"""Seconds that one answer may take; a deletion waits for the operation before it."""


def segment(name: str, noun: str) -> str:
    """`name` as one segment of a path. Raises NotFound where nothing can have such a name."""
    if not name or "/" in name or name.startswith("."):
        raise NotFound(f"there is no {noun} {name[:80]!r}")
    return quote(name[:1000], safe="")


class Client:
    """Requests to the API; every failure is a TorporError."""

    def __init__(self, socket: Path, start: Callable[[], None] | None = None) -> None:
        """`start` is called, once, where no daemon answers."""
        self._start = start
        self._socket = socket
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://torpor",
            timeout=httpx.Timeout(PATIENCE, connect=5.0),
        )

    def get(self, path: str, **query: str | int | None) -> Document:
        return self._document(self._send("GET", path, query=query))

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, dry_run: bool = False) -> Document:
        query: Mapping[str, str | int | None] = {"dry_run": "true"} if dry_run else {}
        return self._document(self._send("POST", path, body=body, query=query))

    def delete(self, path: str) -> Document:
        return self._document(self._send("DELETE", path))

    def chunk(self, path: str, offset: int | None = None) -> tuple[bytes, int]:
        """Raw bytes, and the offset at which to go on."""
        response = self._send("GET", path, query={"offset": offset})
        return response.content, int(response.headers.get("Torpor-Offset", "0"))

    def lines(self, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Document]:
        """The answer's lines as they come. Raises the problem that one of them holds."""
        request = self._http.build_request("POST", path, json=body, timeout=httpx.Timeout(None, connect=5.0))
        response = self._deliver(request, stream=True)
        try:
            for line in response.iter_lines():
                document: Document = json.loads(line)
                if problem := document.get("problem"):
                    raise error_of(problem)
                yield document
        except httpx.TransportError as error:
            raise self._lost(error) from error
        finally:
            response.close()

    def answers(self) -> bool:
        """Whether a daemon is there. Raises MissingPart where we may not ask."""
        try:
            return self._http.get("/v1/health", timeout=5.0).is_success
        except httpx.TransportError as error:
            self._refuse_stranger(error)
            return False

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int | None] | None = None,
    ) -> httpx.Response:
        params = {key: value for key, value in (query or {}).items() if value is not None}
        return self._deliver(self._http.build_request(method, path, json=body, params=params))

    def _deliver(self, request: httpx.Request, stream: bool = False) -> httpx.Response:
        try:
            response = self._attempt(request, stream)
        except httpx.TransportError as error:
            raise self._lost(error) from error
        if response.is_error:
            response.read()
            raise error_of(self._document(response))
        return response

    def _attempt(self, request: httpx.Request, stream: bool) -> httpx.Response:
        try:
            return self._http.send(request, stream=stream)
        except httpx.ConnectError as error:
            # Nothing was sent, so sending it again is safe.
            self._refuse_stranger(error)
            if self._start is None:
                raise
            start, self._start = self._start, None
            start()
            return self._http.send(request, stream=stream)

    def _refuse_stranger(self, error: Exception) -> None:
        if "Permission denied" in str(error):
            raise MissingPart(
                "the daemon can't be asked",
                detail=f"only root may use {self._socket}",
                remedy="run this command as root",
            ) from error

    def _lost(self, error: httpx.TransportError) -> DaemonUnreachable:
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
            return DaemonUnreachable(
                "the daemon's answer broke off",
                detail="the daemon ended meanwhile",
                remedy="look at daemon.log in the state directory",
            )
        what = "the daemon does not answer" if isinstance(error, httpx.ConnectError) else "the daemon gave no answer"
        return DaemonUnreachable(
            what,
            detail=f"{self._socket}: {error}" if str(error) else str(self._socket),
            remedy="look at daemon.log in the state directory",
        )

    def _document(self, response: httpx.Response) -> Document:
        if response.status_code == 204:
            return {}
        try:
            document = response.json()
        except ValueError as error:
            raise DaemonUnreachable(
                "the daemon's answer is no JSON", remedy="check that this is Torpor's socket"
            ) from error
        return document if isinstance(document, dict) else {}
