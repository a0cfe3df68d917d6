"""What is refused at the door, before a request is parsed: foreign pages, wrong tokens, long bodies, a full queue."""

import asyncio
import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .queue import Full, Limits, Queue

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
BODY_SECONDS = 30.0  # within which a body must have come
GUARDED_PATHS = ("/v1/", "/metrics")  # that need the token; the page and /health do not
UPLOADS = ("/v1/audio/edits", "/v1/audio/plan/read")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
        b"worker-src 'self' blob:; frame-ancestors 'none'",
    ),
]


class Guard:
    """Middleware around the app.

    Args:
        token: that requests must bear; None for a server that only this machine reaches. Such a one is then asked under
            a name of this machine alone, and by no page of another site.
    """

    def __init__(self, app: ASGIApp, queue: Queue, limits: Limits, token: str | None) -> None:
        self.app, self.queue, self.limits, self.token = app, queue, limits, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        path, is_post = scope["path"], scope["method"] == "POST"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        refusal = self._refusal(path, headers)
        if refusal is not None:
            await _refuse(send_guarded, *refusal)
            return
        if not is_post or not path.startswith("/v1/"):
            await self.app(scope, _without_body(receive), send_guarded)
            return
        try:
            with self.queue.place():
                most = self.limits.max_upload_bytes if path in UPLOADS else self.limits.max_body_bytes
                body = await _read(receive, headers, most)
                if isinstance(body, tuple):
                    await _refuse(send_guarded, *body)
                elif body is not None:
                    await self.app(scope, _again(body, receive), send_guarded)
        except Full as full:
            await _refuse(send_guarded, 429, "busy", None, str(full), {"retry-after": str(full.retry_after)})

    def _refusal(self, path: str, headers: dict[str, bytes]) -> tuple[int, str, str | None, str] | None:
        if self.token is None:
            host = headers.get("host", b"").decode("latin-1")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            origin = headers.get("origin", b"").decode("latin-1")
            if name not in LOCAL_HOSTS or (origin and origin.partition("://")[2] != host):
                return (
                    403,
                    "forbidden",
                    None,
                    "This server answers pages of its own and programs on this machine alone.",
                )
        elif path.startswith(GUARDED_PATHS):
            scheme, _, given = headers.get("authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token.encode()):
                return 401, "unauthorized", "Authorization", "Send the server's token: `Authorization: Bearer TOKEN`."
        return None


async def _read(receive: Receive, headers: dict[str, bytes], most: int) -> bytes | tuple[int, str, None, str] | None:
    """The whole body; what to answer if it is too long or too late; None where the client has left."""
    too_long = 413, "too_large", None, f"A body here has at most {most} bytes. Send less."
    length = headers.get("content-length", b"0")
    if not length.isdigit():
        return 400, "invalid_request", None, "`Content-Length` must be a whole number."
    if int(length[:20]) > most:
        return too_long
    parts, size, loop = [], 0, asyncio.get_running_loop()
    until = loop.time() + BODY_SECONDS
    while True:
        try:
            message = await asyncio.wait_for(receive(), max(0.0, until - loop.time()))
        except asyncio.TimeoutError:
            return 408, "too_slow", None, f"A body must come within {BODY_SECONDS:g} s."
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return too_long
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, and then whatever comes: that the client has left."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _without_body(receive: Receive) -> Receive:
    """A `receive` for requests that need none: what they send all the same is dropped."""

    async def receive_nothing() -> Message:
        message = await receive()
        return message if message["type"] == "http.disconnect" else {"type": "http.request", "body": b""}

    return receive_nothing


async def _refuse(
    send: Send, status: int, code: str, argument: str | None, message: str, extra: dict[str, str] | None = None
) -> None:
    body = json.dumps({"code": code, "argument": argument, "message": message}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(extra or {})}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
