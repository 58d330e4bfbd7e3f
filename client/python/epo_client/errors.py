"""What can go wrong, each with a message of one line a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2


class Violation(NamedTuple):
    """A field of a request that the server refused: its path from the request, and why."""

    field: str
    description: str


class EpoError(Exception):
    """An error of the server's, or of the way to it.

    `code` is gRPC's; `reason` and `metadata` are the server's google.rpc.ErrorInfo ("" and empty where the server was not reached);
    `violations` lists every bad field of an INVALID_ARGUMENT; `retry_after` says in how many seconds another try may help, where the
    server said so.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after


class InvalidArgumentError(EpoError):
    """The server refused fields of the request; `violations` has each."""


class NotFoundError(EpoError):
    """There is no such job: it was deleted, never existed, or is another client's."""


class UnavailableError(EpoError):
    """The server cannot be reached, or does not take calls just now."""


class AccessError(EpoError):
    """The API key is missing, unknown, or may not do this."""


class StateError(EpoError):
    """The job's state does not allow it, such as cancelling what has ended."""


class LimitError(EpoError):
    """A limit of the server's was reached: of jobs, of calls, of time or of its disk."""


class JobFailedError(EpoError):
    """The job ended as FAILED; the steps before can be read all the same."""


class NoStepsError(EpoError):
    """The job has no step yet, or ended without one, so there is nothing to show."""


class LoadError(EpoError):
    """A file is no saved run, or a damaged one."""


_CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
    grpc.StatusCode.FAILED_PRECONDITION: StateError,
    grpc.StatusCode.ALREADY_EXISTS: StateError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitError,
    grpc.StatusCode.DEADLINE_EXCEEDED: LimitError,
}

# What keeps a connection from being made where there is a server: what gRPC says of it, in lower case, and what that means.
_CONNECTION_FAILURES = {
    "certificate verify failed": "its certificate is not from whom is trusted, or not valid now; Tls(ca=...) names the authorities",
    "hostname verification check failed": "its certificate is for other names; give the address by one of those",
    "wrong version number": "it does not speak TLS; leave out tls",
    "empty address list": "the files of Tls(...) cannot be used together",
    "socket closed": "it closed the connection; does it want TLS (tls=True), or a certificate of yours (Tls(certificate=..., key=...))?",
    "connection reset by peer": "it closed the connection; does it want TLS (tls=True), or a certificate of yours?",
}


def from_rpc(error: grpc.RpcError, address: str) -> EpoError:
    """The error that a call to `address` ended with."""
    call = cast(Any, error)
    code: grpc.StatusCode = call.code()
    message: str = call.details() or "the server gave no reason"
    metadata = {key: value for key, value in (call.trailing_metadata() or ())}
    details = _details(metadata.get("grpc-status-details-bin", b""))
    if code == grpc.StatusCode.UNAVAILABLE and not details:
        return UnavailableError(_unreachable(message, address), code=code)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED and not details:
        return UnavailableError(f"the server at {address} did not answer in time; is it overloaded?", code=code)
    info, violations, retry_after = error_details_pb2.ErrorInfo(), [], None
    for detail in details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations = [Violation(entry.field, entry.description) for entry in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        else:
            detail.Unpack(info)
    if violations:
        message = "\n".join(f"{field}: {description}" for field, description in violations)
    return _CLASSES.get(code, EpoError)(
        message, code=code, reason=info.reason, metadata=dict(info.metadata), violations=violations, retry_after=retry_after
    )


def of_job(job_id: str, status: status_pb2.Status) -> JobFailedError:
    """Why a job ended as FAILED."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return JobFailedError(f"job {job_id} failed: {status.message}", code=codes.get(status.code, grpc.StatusCode.UNKNOWN))


def _details(blob: bytes) -> list[Any]:
    status = status_pb2.Status()
    try:
        status.ParseFromString(blob)
    except DecodeError:
        return []
    return list(status.details)


def _unreachable(message: str, address: str) -> str:
    # Not for a connection that was there: "Socket closed" alone is a server that died.
    connecting = message.startswith(("failed to connect", "empty address list"))
    said = message.lower().replace("_", " ")
    for sign, meaning in _CONNECTION_FAILURES.items():
        if connecting and sign in said:
            return f"cannot reach the server at {address}: {meaning}"
    cause = message.rsplit("Failed to connect to remote host: ", 1)[-1]
    return f"cannot reach the server at {address}: {cause}; is epo-server running there?"
