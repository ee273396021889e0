"""A small OIDC provider for tests: one client, the client credentials grant, RS256 tokens and the keys to check them.

`oidc-provider-mock` has neither this grant nor tokens that are JWTs, which FirecREST wants. The account that a token
stands for is its `sub`.
"""

import base64
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


class OidcProvider:
    """Use as a context manager. `life` is that of a token in seconds; `failing` makes the token endpoint answer 503."""

    def __init__(self, account: str, life: int = 300) -> None:
        self.account, self.life, self.failing, self.issued = account, life, False, 0
        self.client_id, self.client_secret = "hub", secrets.token_urlsafe(16)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "OidcProvider":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    def token(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """The answer to a request for a token: status and JSON."""
        if self.failing:
            return 503, {"error": "temporarily_unavailable"}
        if form.get("grant_type") != ["client_credentials"]:
            return 400, {"error": "unsupported_grant_type"}
        if form.get("client_id") != [self.client_id] or form.get("client_secret") != [self.client_secret]:
            return 401, {"error": "invalid_client"}
        self.issued += 1
        now = int(time.time())
        claims = {"iss": self.url, "sub": self.account, "iat": now, "exp": now + self.life}
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "test"})
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.life}

    def keys(self) -> dict[str, Any]:
        public = self._key.public_key().public_numbers()
        numbers = {"n": _base64url(public.n), "e": _base64url(public.e)}
        return {"keys": [{"kty": "RSA", "kid": "test", "use": "sig", "alg": "RS256", **numbers}]}


def _base64url(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _handler(provider: OidcProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, provider.keys()) if self.path == "/certs" else self._answer(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            self._answer(*provider.token(parse_qs(body)))

        def _answer(self, status: int, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
