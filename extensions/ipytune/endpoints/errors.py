"""What can go wrong between a notebook and an endpoint, one type per thing a caller can act on.

Every error says what happened, why, and what to do about it, in words a user may read. None ever holds a key: the text
that a server sent is shortened and the key, should the server repeat it, is blotted out before it gets here.
"""

from __future__ import annotations


class EndpointError(Exception):
    """Base of all of them.

    what: one sentence, what failed.   why: the cause as far as it is known.   remedy: what the reader can do.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(what, why, remedy)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.remedy) if part)


class KeyMissing(EndpointError):
    """The environment variable or file that should hold the key is not there, is empty, or holds no key."""


class Unreachable(EndpointError):
    """No connection: nothing listens, the name is unknown, TLS failed, or a network policy drops the packets."""


class Untrusted(Unreachable):
    """TLS failed: the certificate is of an unknown authority, for another name or expired, or there is no TLS there."""


class Unauthorized(EndpointError):
    """401 or 403: the key is missing, wrong, or not allowed to use this model."""


class ModelNotFound(EndpointError):
    """The server does not serve this model. `available` lists what it says it serves (may be empty)."""

    def __init__(self, what: str, why: str = "", remedy: str = "", available: tuple[str, ...] = ()) -> None:
        super().__init__(what, why, remedy)
        self.available = available


class RateLimited(EndpointError):
    """429. `retry_after` is what the server asked for, in seconds, or None."""

    def __init__(self, what: str, why: str = "", remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(what, why, remedy)
        self.retry_after = retry_after


class BudgetExceeded(EndpointError):
    """The gateway knows the key, but its budget, quota or credit is used up: 402, or another 4xx that says so."""


class BadRequest(EndpointError):
    """What was asked for cannot be asked: another 3xx or 4xx of the server, or refused here before it was sent."""


class ServerFailed(EndpointError):
    """5xx, an error object inside the stream, or an answer that is no stream at all."""


class StreamCut(EndpointError):
    """The connection ended before the server said that the answer was complete."""


class TimedOut(EndpointError):
    """One of the four clocks ran out; `clock` is connect, first_token, between_tokens or total."""

    def __init__(self, what: str, why: str = "", remedy: str = "", clock: str = "total") -> None:
        super().__init__(what, why, remedy)
        self.clock = clock
