"""An S3 server on this machine (moto's), which counts requests, and can be slow, busy or away."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs as pafs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_EC2_METADATA_DISABLED": "true"}
BUCKET = "lab-bucket"


class ObjectStore:
    """One bucket, whose content outlives ``down``. ``seconds`` each answer takes; ``refuses`` is what it says instead
    of answering, as S3 calls it."""

    def __init__(self) -> None:
        self.seconds, self.refuses = 0.0, ""
        self.log: list[str] = []  # method and path, and the first parameter, of each request
        self._inner: Application = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self.up()

    def up(self) -> None:
        """Answer, at the same port as before."""
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True, request_handler=_Quiet)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def uri(self, path: str, user: str = "", bucket: str = BUCKET) -> str:
        """Of a folder in the bucket."""
        return f"s3://{user}{bucket}/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    @property
    def filesystem(self) -> pafs.S3FileSystem:
        """To look into it, and to break things."""
        return pafs.S3FileSystem(access_key="a-key", secret_key="a-secret", scheme="http", region="us-east-1",
                                 endpoint_override=f"127.0.0.1:{self.port}", allow_bucket_creation=True)

    def counted(self) -> Counter[str]:
        """How many requests of each kind there were since the last call."""
        found = Counter(self.log)
        self.log.clear()
        return found

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        query = environ["QUERY_STRING"]
        kind = "LIST" if "list-type" in query else environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].removeprefix(f"/{BUCKET}")
        self.log.append(f"{kind} {path}{'?' + query.partition('=')[0] if query and kind != 'LIST' else ''}")
        time.sleep(self.seconds)
        if self.refuses:
            start(self.refuses, [("Content-Type", "application/xml")])
            code = self.refuses.partition(" ")[2].replace(" ", "")
            return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]
        return self._inner(environ, start)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[ObjectStore]:
    """A server with an empty bucket."""
    store = ObjectStore()
    try:
        store.filesystem.create_dir(BUCKET)
        store.log.clear()
        yield store
    finally:
        store.down()
