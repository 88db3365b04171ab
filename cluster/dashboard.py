"""HTTP with the dashboard of a Ray cluster: our token goes to it and to nobody else, and every trouble is one line."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cluster.connection import last_line
from cluster.credentials import token, token_source
from cluster.errors import ClusterError

ANSWER_SECONDS = 8.0  # of silence
WORK_SECONDS = 120.0  # where it starts a process, or reads much, before it answers
LEAST_RAY = (2, 52)  # the first that takes a token


class Unreachable(ClusterError):
    """It may answer again soon."""


class Missing(ClusterError):
    """Ray knows no such thing."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody: the token would go along."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


@dataclass(frozen=True)
class Dashboard:
    """The dashboard at ``url``. All methods raise ClusterError where there is none, or it refuses us."""

    url: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            good = good and "@" not in parts.netloc and not parts.query and not parts.fragment
        except ValueError:
            good = False
        if not good or not re.fullmatch(r"[!-~]+", self.url):
            shown = re.sub(r"//[^/]*@", "//...@", self.url)  # a password, maybe
            raise ClusterError(f"--to {shown!r}: expected the URL of a Ray dashboard, such as http://head:8265")

    def at(self, path: str) -> str:
        """The URL of a path."""
        return self.url.rstrip("/") + path

    def version(self) -> str:
        """Of Ray there, which must be one that we can use."""
        there = str(self.get("/api/version").get("ray_version"))
        if not re.match(r"\d+\.\d", there):
            raise self._no_dashboard()
        if tuple(map(int, re.findall(r"\d+", there)[:2])) < LEAST_RAY:
            raise ClusterError(f"--to {self.url}: Ray {there} is too old there; it takes "
                               f"`pip install 'ray[default]>={'.'.join(map(str, LEAST_RAY))}'` on the cluster's nodes")
        return there

    def get(self, path: str, slow: bool = False, kind: type = dict) -> Any:
        """The JSON at a path, an object unless said otherwise."""
        try:
            answer = json.loads(self.call("GET", path, slow=slow))
        except ValueError:
            answer = None
        if not isinstance(answer, kind):
            raise self._no_dashboard()
        return answer

    def call(self, method: str, path: str, body: bytes | None = None, slow: bool = False) -> bytes:
        """What it answers; ``slow`` where that may take long. Raises ``Missing`` and ``Unreachable`` too."""
        request = urllib.request.Request(self.at(path), body, method=method)
        request.add_header("Content-Type", "application/json" if method == "POST" else "application/octet-stream")
        if (secret := token()) is not None:
            if not re.fullmatch(r"[!-~]+", secret):  # an error of the library's would show it
                raise ClusterError(f"{token_source()} is not a token: it has spaces, or signs beyond ASCII")
            request.add_unredirected_header("Authorization", f"Bearer {secret}")
        try:
            with _OPENER.open(request, timeout=WORK_SECONDS if slow else ANSWER_SECONDS) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise self._silence(error.reason if isinstance(error, urllib.error.URLError) else error) from None

    def _refusal(self, error: urllib.error.HTTPError) -> ClusterError:
        """In place of an answer that says no."""
        where = f"--to {self.url}"
        if error.code in (401, 403):
            return ClusterError(f"{where}: the cluster refuses {token_source()}; it takes the one its head was started "
                                "with")
        if error.code in range(300, 400):
            return ClusterError(f"{where}: sends us on to {error.headers.get('Location')!r}; give the URL of the "
                                "dashboard itself")
        if error.code == 413:
            return ClusterError(f"{where}: the study's files are more than the cluster takes; make them smaller")
        try:
            said = error.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        if error.code == 404 and "does not exist" in said:
            return Missing(f"{where}: {last_line(said)}")
        if error.code >= 500:
            return Unreachable(f"{where}: {error.code} {last_line(said)}; see the dashboard's log on the head")
        return self._no_dashboard()

    def _silence(self, reason: object) -> ClusterError:
        """In place of an answer."""
        where = f"--to {self.url}"
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ClusterError(f"{where}: its certificate is not trusted ({reason.verify_message}); name its "
                                "authority's with SSL_CERT_FILE")
        if isinstance(reason, ssl.SSLError):
            return ClusterError(f"{where}: what answers there does not speak TLS; try http://")
        if isinstance(reason, http.client.HTTPException | ConnectionResetError):
            return Unreachable(f"{where}: what answers there broke off, or does not speak HTTP; is that the port of a "
                               "dashboard, and is it https://?")
        return Unreachable(f"{where}: nobody answers there ({reason}); check host, port and firewall, and that the "
                           "head has a dashboard (`pip install 'ray[default]'` there)")

    def _no_dashboard(self) -> ClusterError:
        return ClusterError(f"--to {self.url}: what answers there is not a Ray dashboard; its port is usually 8265")
