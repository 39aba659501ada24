"""A local S3 server, for state in a bucket."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest


@contextmanager
def s3_server(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server for the time of the block, point every client at it, and yield the address of a bucket."""
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
    import boto3

    bucket, _, path = url.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{path}/").get("Contents", [])
    names = [each["Key"] for each in found]
    contents: dict[str, bytes] = {}
    for name in names:
        # A run that ends meanwhile removes what it had sent in pieces.
        with suppress(client.exceptions.NoSuchKey):
            contents[name.removeprefix(f"{path}/")] = client.get_object(Bucket=bucket, Key=name)["Body"].read()
    return contents


def sent(url: str) -> str:
    """Return what has arrived in the bucket of the ledger of the run that goes on."""
    return b"".join(text for name, text in sorted(objects(url).items()) if name.endswith(".jsonl")).decode()
