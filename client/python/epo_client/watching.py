"""Following a job over connections that break: what both clients do between two calls. No input or output here."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import grpc

from epo_client._proto import job_pb2, service_pb2
from epo_client.errors import EpoError, UnavailableError

_FIRST_BACKOFF = 0.25
_LONGEST_BACKOFF = 4.0
# A server that restarts may take minutes to load its model.
WATCH_PATIENCE = 600.0
CALL_PATIENCE = 30.0

TERMINAL = frozenset({job_pb2.Job.SUCCEEDED, job_pb2.Job.FAILED, job_pb2.Job.CANCELLED})


@dataclass
class Retry:
    """Decides whether and when a broken call is tried again. `patience` is in seconds since the first try that heard nothing."""

    patience: float
    _lost_at: float | None = None
    _backoff: float = _FIRST_BACKOFF

    def failed(self, error: EpoError, heard: bool = False) -> float:
        """How many seconds to wait before the next try; raises `error` when there should be none. `heard`: the call brought something
        before it broke."""
        if heard:
            self._lost_at, self._backoff = None, _FIRST_BACKOFF
        # A server that goes away cancels what is left.
        passes = error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or error.retry_after is not None
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if not passes or now - self._lost_at >= self.patience:
            raise error
        # Cut by up to a half at random, so that the watchers of a server that restarts do not all come at once.
        delay = max(self._backoff * random.uniform(0.5, 1.0), error.retry_after or 0.0)
        self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF)
        return min(delay, max(0.0, self._lost_at + self.patience - now))


@dataclass
class Cursor:
    """Where a watch is: each update is taken once and in order, whatever connections it came over."""

    job_id: str
    # The sequence number of the last update taken.
    after: int = 0
    # Whether updates between may be left out in favour of the newest.
    latest: bool = False
    # The job as last told.
    job: job_pb2.Job = field(default_factory=job_pb2.Job)
    ended: bool = False
    # Whether the stream under way brought anything that helps. One that leaves updates out does not, or a server that always does so would
    # be asked forever.
    heard: bool = False

    def request(self) -> service_pb2.WatchJobRequest:
        self.heard = False
        delivery = service_pb2.WatchJobRequest.LATEST if self.latest else service_pb2.WatchJobRequest.EVERY
        return service_pb2.WatchJobRequest(id=self.job_id, after_sequence=self.after, delivery=delivery)

    def take(self, response: service_pb2.WatchJobResponse) -> job_pb2.Step | None:
        """The step that `response` brings, if it is a new one. Raises UnavailableError when it does not follow what came before."""
        self.heard = True
        update = response.WhichOneof("update")
        if update == "created":
            self.job.CopyFrom(response.created)
        elif update == "heartbeat" and response.heartbeat.HasField("job"):
            self.job.CopyFrom(response.heartbeat.job)
        if update not in ("step", "ended") or response.sequence <= self.after:
            return None
        if response.sequence > self.after + 1 and not self.latest:
            self.heard = False
            left_out = f"{self.after + 1} to {response.sequence - 1}"
            raise UnavailableError(f"the stream left out the updates {left_out}", code=grpc.StatusCode.UNAVAILABLE)
        self.after = response.sequence
        if update == "ended":
            self.job.CopyFrom(response.ended)
            self.ended = True
            return None
        if response.step.index >= self.job.completed_iterations:
            self.job.state = job_pb2.Job.RUNNING
            self.job.completed_iterations = response.step.index + 1
        return response.step


def stream_broke() -> UnavailableError:
    """For a stream that ended well before its job did."""
    return UnavailableError("the stream ended before the job did", code=grpc.StatusCode.UNAVAILABLE)


def describe(job: job_pb2.Job) -> str:
    """The job's state in a few words."""
    state = job_pb2.Job.State.Name(job.state)
    if job.waits_for:
        return f"{state}, waits for {job.waits_for}"
    if job.queue_position:
        return f"{state}, place {job.queue_position} in the queue"
    return f"{state}, {job.completed_iterations} of {job.spec.iterations} steps"
