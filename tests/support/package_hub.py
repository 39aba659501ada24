"""A server that answers as dbt's package hub does: an index, a page for each package, and their archives."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.served import served


class PackageHub(ThreadingHTTPServer):
    """Offer versions of one package that holds a macro.

    Attributes:
        asked: the paths of the requests, in their order.
    """

    daemon_threads = True

    def __init__(self, package: str, versions: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.package = package
        self.versions = versions
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """Return what DBT_PACKAGE_HUB_URL is set to."""
        return f"http://127.0.0.1:{self.server_port}/"

    def page(self) -> dict[str, object]:
        """Return what the hub says of the package."""
        namespace, name = self.package.split("/")
        return {
            "id": self.package,
            "namespace": namespace,
            "name": name,
            "versions": {
                version: {
                    "id": f"{self.package}/{version}",
                    "name": name,
                    "version": version,
                    "packages": [],
                    "require_dbt_version": [],
                    "downloads": {"tarball": f"{self.address}{name}-{version}.tar.gz", "format": "tgz", "sha1": None},
                }
                for version in self.versions
            },
        }

    def archive(self, path: str) -> bytes:
        """Return a version as the archive that GitHub makes of a tag: in a folder of its own."""
        _, name = self.package.split("/")
        folder = path.removeprefix("/").removesuffix(".tar.gz")
        files = {
            "dbt_project.yml": f"name: {name}\nversion: {folder.rpartition('-')[2]}\nconfig-version: 2\n",
            "macros/answer.sql": "{% macro answer() %}42{% endmacro %}\n",
        }
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w:gz") as archive:
            for file, text in files.items():
                entry = tarfile.TarInfo(f"{folder}/{file}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        return whole.getvalue()


class _Handler(BaseHTTPRequestHandler):
    server: PackageHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.server, self.path.split("?")[0]
        hub.asked.append(path)
        if path == "/api/v1/index.json":
            body = json.dumps([hub.package]).encode()
        elif path == f"/api/v1/{hub.package}.json":
            body = json.dumps(hub.page()).encode()
        elif path.endswith(".tar.gz"):
            body = hub.archive(path)
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def package_hub(package: str, *versions: str) -> Iterator[PackageHub]:
    """Offer versions of a package for the block."""
    with served(PackageHub(package, versions)) as server:
        yield server
