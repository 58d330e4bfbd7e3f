"""The client for scripts and notebooks."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pandas as pd

from epo_client import errors, fields
from epo_client._proto import attribution_pb2, job_pb2, model_pb2, service_pb2, service_pb2_grpc
from epo_client.attribution import Attribution, Parts, request_for_prompt
from epo_client.connection import Tls, resolve
from epo_client.history import Pools
from epo_client.objective import Objective
from epo_client.progress import Bar, TokenBar
from epo_client.run import Run
from epo_client.steps import ScoredPrompt, frame
from epo_client.watching import CALL_PATIENCE, WATCH_PATIENCE, Cursor, Retry, stream_broke

TIMEOUT = 60.0
SCORE_TIMEOUT = 600.0


class Client:
    """A connection to one epo-server; safe from several threads. Connects when it is first used.

    `address` is HOST:PORT, by default EPO_SERVER or 127.0.0.1:50051; `api_key` is by default EPO_API_KEY; `tls` is True, or a `Tls` that
    names files. Raises ValueError for a key that would travel in the clear.
    """

    def __init__(self, address: str | None = None, *, api_key: str | None = None, tls: bool | Tls = False) -> None:
        connection = resolve(address, api_key, tls)
        self.address = connection.address
        self._metadata = connection.metadata
        if connection.credentials is None:
            self._channel = grpc.insecure_channel(connection.address, connection.options)
        else:
            self._channel = grpc.secure_channel(connection.address, connection.credentials, connection.options)
        self._stub: Any = service_pb2_grpc.EpoServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._reached = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls; jobs go on."""
        self._channel.close()

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def dream(self, objective: Objective, *, request_id: str | None = None, **spec: object) -> Run:
        """Starts a search for prompts that maximise `objective`.

        `spec` are the fields of the wire contract's JobSpec: iterations=300, tokens=12, population=8, children_per_parent=32, top_k=512,
        seed=0, ...; what is absent takes the published default. Prompts are texts or lists of ids, enums their names, a penalty range a
        number or a pair. A repeat under one `request_id` (a UUID) returns the first job.

        Raises TypeError for a field that does not exist, InvalidArgumentError with all `violations` for values that the server refuses.
        """
        return Run(self, self._call("CreateJob", create_request(objective, request_id, spec)))

    def job(self, job_id: str) -> Run:
        """A job that was made before. Raises NotFoundError."""
        return Run(self, self._call("GetJob", service_pb2.GetJobRequest(id=job_id)))

    def jobs(self, *states: str) -> Iterator[Run]:
        """Jobs from the newest to the oldest; with `states`, only those in one of them: jobs("RUNNING", "QUEUED")."""
        request = service_pb2.ListJobsRequest()
        fields.fill(request, {"states": states}, "jobs")
        while True:
            page = self._call("ListJobs", request)
            yield from (Run(self, job) for job in page.jobs)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def score(self, objective: Objective, prompts: Sequence[str | Sequence[int]], **around: object) -> pd.DataFrame:
        """Target and cross-entropy of any prompts, texts or token ids: a row each, with the columns of `Run.frontier`. `around` are the other
        fields of the wire contract's ScoreRequest: contexts=[{"prefix": "Once"}], ..."""
        request = service_pb2.ScoreRequest()
        fields.fill(request, {"objective": objective, "prompts": prompts, **around}, "score")
        reply = self._call("Score", request, timeout=SCORE_TIMEOUT)
        return frame([ScoredPrompt.of(score) for score in reply.scores])

    def attribute(
        self,
        objective: Objective,
        prompt: str | Sequence[int],
        *,
        substitutes: int | None = None,
        progress: bool = True,
        **around: object,
    ) -> Attribution:
        """What a prompt's target owes to each of its tokens: how it changes when another token stands in one's place.

        The server tries `substitutes` tokens (32) in each place, those that the target's gradient promises the most. `around` is as in
        `score`.
        """
        request = request_for_prompt({"objective": objective, "prompt": prompt, "substitutes": substitutes, **around})
        return self._attribute(request, progress)

    def tokenize(self, text: str) -> list[tuple[int, str]]:
        """The token ids of a text, each with its own text."""
        reply = self._call("Tokenize", service_pb2.TokenizeRequest(text=text))
        return [(token.id, token.text) for token in reply.tokens]

    def upload_vector(self, values: npt.ArrayLike) -> str:
        """Keeps a vector, or a matrix of one a row, on the server; returns the name by which objectives take it."""
        reply: service_pb2.UploadedVector = self._call("UploadVector", service_pb2.UploadVectorRequest(npy=npy(values)))
        return reply.name

    def model(self) -> model_pb2.Model:
        """The model that the server keeps resident."""
        info: service_pb2.GetServerInfoResponse = self._call("GetServerInfo", service_pb2.GetServerInfoRequest())
        return info.model

    def _call(self, method: str, request: object, *, repeatable: bool = True, timeout: float = TIMEOUT) -> Any:
        retry = Retry(CALL_PATIENCE)
        while True:
            try:
                reply = getattr(self._stub, method)(request, timeout=timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                problem = errors.from_rpc(error, self.address)
            else:
                self._reached = True
                return reply
            # A server that was never there is an error at once.
            if not repeatable or not (self._reached or problem.retry_after):
                raise problem
            time.sleep(retry.failed(problem))

    def _watch(self, cursor: Cursor, bar: Bar) -> Iterator[job_pb2.Step]:
        retry = Retry(WATCH_PATIENCE)
        while True:
            call = self._stub.WatchJob(cursor.request(), metadata=self._metadata)
            problem: errors.EpoError = stream_broke()
            try:
                for response in call:
                    step = cursor.take(response)
                    if cursor.ended:
                        bar.ended(cursor.job)
                        return
                    if step is None:
                        bar.found(cursor.job)
                    else:
                        bar.step(step, cursor.job)
                        yield step
            except grpc.RpcError as error:
                problem = errors.from_rpc(error, self.address)
            except errors.UnavailableError as error:
                problem = error
            finally:
                call.cancel()
            delay = retry.failed(problem, cursor.heard)
            bar.lost(problem)
            time.sleep(delay)

    def _attribute(self, request: attribution_pb2.AttributeRequest, progress: bool, objective: Objective | None = None) -> Attribution:
        retry = Retry(CALL_PATIENCE)
        with TokenBar(progress) as bar:
            while True:
                parts = Parts(bar)
                call = self._stub.Attribute(request, metadata=self._metadata)
                try:
                    for response in call:
                        self._reached = True
                        parts.add(response)
                    return parts.whole(objective or Objective(request.objective))
                except grpc.RpcError as error:
                    problem = errors.from_rpc(error, self.address)
                except errors.UnavailableError as error:
                    problem = error
                finally:
                    call.cancel()
                if not (self._reached or problem.retry_after):
                    raise problem
                delay = retry.failed(problem)
                bar.lost(problem)
                time.sleep(delay)

    def _read_history(self, job_id: str, pools: Pools) -> None:
        retry = Retry(CALL_PATIENCE)
        while True:
            before = len(pools)
            request = service_pb2.GetHistoryRequest(id=job_id, first_iteration=before)
            try:
                for iteration in self._stub.GetHistory(request, metadata=self._metadata):
                    pools.add(iteration)
                return
            except grpc.RpcError as error:
                problem = errors.from_rpc(error, self.address)
            time.sleep(retry.failed(problem, heard=len(pools) > before))


def npy(values: npt.ArrayLike) -> bytes:
    """The numbers as a .npy file of float32."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(values, "<f4"))
    return file.getvalue()


def create_request(objective: Objective, request_id: str | None, spec: dict[str, object]) -> service_pb2.CreateJobRequest:
    """Only what was given is in the request: the server fills in the rest. Its id makes it safe to ask again."""
    if not isinstance(objective, Objective):
        raise TypeError(f"dream: give an objective, such as neuron(8, 1), not {objective!r}")
    request = service_pb2.CreateJobRequest(request_id=request_id or str(uuid.uuid4()))
    fields.fill(request.spec, {"objective": objective, **spec}, "dream")
    return request
