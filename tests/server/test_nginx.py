"""Behind nginx, as platforms do it: a prefix, TLS, and a Unix socket between the two."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import logistream as ls
from helpers.sockets import free_port
from helpers.waiting import until
from helpers.websocket import connect
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("nginx") is None or shutil.which("openssl") is None,
        reason="needs nginx and openssl: apt-get install nginx-light openssl",
    ),
]

HOST = "orders.example"
COUNT = 50

CONFIGURATION = """
daemon off; error_log stderr warn; pid {folder}/pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    server_name {host};
    ssl_certificate {folder}/certificate; ssl_certificate_key {folder}/key;
    location /orders/ {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[int]:
    """Run nginx in front of a server; give its port."""
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *names, *files],
        check=True,
        capture_output=True,
    )
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, host=HOST, upstream=upstream))
    # As root, workers would be another user, who may not open the socket.
    user = ["-g", "user root;"] if Path("/proc/self").stat().st_uid == 0 else []
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            ["nginx", "-p", str(folder), "-c", str(configuration), *user], stderr=log
        ) as process,
    ):
        try:
            until(lambda: process.poll() is not None or _answers(port))
            assert process.poll() is None, (folder / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(60)


def _answers(port: int) -> bool:
    try:
        httpx2.get(f"https://127.0.0.1:{port}/", verify=False)
    except httpx2.TransportError:
        return False
    return True


@pytest.fixture(scope="module", params=["port", "unix socket"])
def proxied(
    request: pytest.FixtureRequest, model: Model
) -> Iterator[tuple[StreamServer, str, ssl.SSLContext]]:
    """Give a server, its address at the proxy, and what trusts its certificate."""
    with tempfile.TemporaryDirectory(prefix="ls-") as name:
        folder = Path(name)
        place: dict[str, Any] = {"port": 0} if request.param == "port" else {"unix_socket": folder / "socket"}
        with StreamServer(
            model, rate=200, history="30s", root_path="/orders", token="sesame", **place
        ) as server:
            path = f"unix:{server.unix_socket}:" if server.unix_socket else f"127.0.0.1:{server.port}"
            with nginx(folder, f"http://{path}/") as port:
                trusting = ssl.create_default_context(cafile=str(folder / "certificate"))
                yield server, f"127.0.0.1:{port}/orders", trusting


def get(proxied: tuple[StreamServer, str, ssl.SSLContext], path: str) -> httpx2.Response:
    """Return what the proxy answers to somebody who has the token."""
    _, address, trusting = proxied
    headers = {"Authorization": "Bearer sesame"}
    return httpx2.get(f"https://{address}{path}", headers=headers, verify=trusting, timeout=60)


def test_addresses_are_those_of_the_caller(proxied: tuple[StreamServer, str, ssl.SSLContext]) -> None:
    """In the status, the AsyncAPI and the OpenAPI description, and in the page with what it loads."""
    _, address, _ = proxied
    assert get(proxied, "/").json()["websocket_url"] == f"wss://{address}/ws"
    described = get(proxied, "/asyncapi.json").json()
    place = described["servers"]["this"]
    assert f"{place['protocol']}://{place['host']}{place['pathname']}" == f"wss://{address}"
    assert described["info"]["externalDocs"]["url"] == f"https://{address}/docs"
    page = get(proxied, "/docs").text
    assert "/orders/openapi.json" in page
    assert "/orders/docs/static/swagger-ui-bundle.js" in page
    for loaded in ("/openapi.json", "/docs/static/swagger-ui-bundle.js", "/docs/static/swagger-ui.css"):
        assert get(proxied, loaded).status_code == 200
    assert get(proxied, "/openapi.json").json()["servers"] == [{"url": "/orders"}]


def test_events_by_every_way(proxied: tuple[StreamServer, str, ssl.SSLContext]) -> None:
    """A range, the WebSocket over TLS and server-sent events hold the same events."""
    _, address, trusting = proxied
    expected = get(proxied, f"/events?numbered=true&stop={COUNT}").json()
    assert [event["event_number"] for event in expected] == list(range(COUNT))
    query = f"numbered=true&start=0&stop={COUNT}&token=sesame"
    with connect(f"wss://{address}/ws?{query}", ssl=trusting) as reader:
        assert [json.loads(message) for message in reader] == expected
    sent = get(proxied, f"/sse?{query}").text
    assert [json.loads(line[6:]) for line in sent.splitlines() if line.startswith("data: ")] == expected


def test_live_events_are_not_held_back(proxied: tuple[StreamServer, str, ssl.SSLContext]) -> None:
    """Server-sent events pass as they happen, and a reader that leaves is noticed."""
    server, address, trusting = proxied
    url = f"https://{address}/sse?numbered=true&token=sesame"
    with httpx2.stream("GET", url, verify=trusting, timeout=60) as answer:
        lines = answer.iter_lines()
        for _ in range(3):
            event = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
            assert server.state["next_event_number"] - event["event_number"] < 200 * 10
        assert server.connected_clients == 1
    until(lambda: server.connected_clients == 0)


def test_our_client_reads_through_it(
    proxied: tuple[StreamServer, str, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`connect` takes the address that the status names."""
    _, address, trusting = proxied
    certificate = tmp_path / "certificate"
    certificate.write_text(ssl.DER_cert_to_PEM_cert(trusting.get_ca_certs(binary_form=True)[0]))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def numbers() -> list[int]:
        found = []
        async with ls.connect(f"wss://{address}/ws", start=0, numbered=True, token="sesame") as events:
            async for event in events:
                found.append(event["event_number"])
                if len(found) == COUNT:
                    break
        return found

    assert asyncio.run(numbers()) == list(range(COUNT))
