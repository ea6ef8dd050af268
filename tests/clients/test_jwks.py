"""Keys of tokens over HTTPS, from a provider whose certificate is trusted, or not."""

import base64
import http.server
import json
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import eventually
from http_drivers import Httpx
from test_hostile import tool

KEYS = Path(__file__).parents[1] / "keys"
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
NEW = ("req", *CURVE, "-nodes", "-subj", "/CN=test")


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run([tool("openssl"), *arguments], input=stdin, capture_output=True, check=True)
    return done.stdout


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(tmp_path: Path, kid: str) -> str:
    head = part(json.dumps({"alg": "EdDSA", "kid": kid}).encode())
    text = f"{head}.{part(json.dumps({'sub': '42'}).encode())}"
    (tmp_path / "text").write_text(text)
    sign = ("pkeyutl", "-sign", "-rawin", "-inkey", KEYS / "ed25519.pem", "-in", tmp_path / "text")
    return f"{text}.{part(openssl(*sign))}"


@pytest.fixture
def provider(tmp_path):
    """Its URL, and the certificate of who vouches for it."""
    ca, leaf = tmp_path / "ca", tmp_path / "leaf"
    openssl(*NEW, "-x509", "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", "2")
    name = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")
    openssl(*NEW, *name, "-keyout", f"{leaf}.key", "-out", f"{leaf}.csr")
    by = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-copy_extensions", "copy")
    openssl("x509", "-req", "-in", f"{leaf}.csr", *by, "-out", f"{leaf}.pem", "-days", "2")

    public = openssl("pkey", "-pubin", "-in", KEYS / "ed25519.pub.pem", "-outform", "DER")[-32:]
    key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "1", "x": part(public)}
    body = json.dumps({"keys": [key]}).encode()

    class Provider(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{leaf}.pem", f"{leaf}.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}/keys", f"{ca}.pem"
    server.shutdown()
    server.server_close()


def status(server, bearer: str) -> int:
    client = Httpx()
    headers = {"Authorization": f"Bearer {bearer}"}
    answer = client.request("GET", server.topic("t"), headers=headers)
    client.end()
    return answer.status


def test_keys_come_over_https_from_a_provider_that_is_vouched_for(
    start, provider, tmp_path, monkeypatch
):
    url, ca = provider
    monkeypatch.setenv("THRONG_CLIENT_TOKEN_JWKS_PUBLIC_ENDPOINT", url)
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    server = start()
    assert "fetched 1 keys" in server.log, server.log
    assert status(server, token(tmp_path, "1")) == 200
    assert status(server, token(tmp_path, "2")) == 401


def test_keys_of_a_provider_that_nobody_vouches_for_are_not_taken(
    start, provider, tmp_path, monkeypatch
):
    url, _ = provider
    monkeypatch.setenv("THRONG_CLIENT_TOKEN_JWKS_PUBLIC_ENDPOINT", url)
    other = tmp_path / "other.pem"
    openssl(*NEW, "-x509", "-keyout", tmp_path / "other.key", "-out", other, "-days", "2")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    server = start()
    eventually("it says why not", lambda: "cannot fetch keys" in server.log)
    assert status(server, token(tmp_path, "1")) == 401
