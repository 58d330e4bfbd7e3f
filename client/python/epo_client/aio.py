"""The same for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
import numpy.typing as npt
import pandas as pd

from epo_client import errors, fields
from epo_client._proto import attribution_pb2, job_pb2, model_pb2, service_pb2, service_pb2_grpc
from epo_client.attribution import Attribution, Parts, best_prompt, request_for_job, request_for_prompt, require_model
from epo_client.client import SCORE_TIMEOUT, TIMEOUT, create_request, npy
from epo_client.connection import Tls, resolve
from epo_client.history import History, Pools
from epo_client.objective import Objective
from epo_client.progress import Bar, TokenBar
from epo_client.results import Results, frontier_of, require_steps
from epo_client.run import FrontierKind, RunBase, frontier_request
from epo_client.steps import ScoredPrompt, Step, frame
from epo_client.watching import CALL_PATIENCE, WATCH_PATIENCE, Cursor, Retry, stream_broke


class AsyncClient:
    """`Client` for asyncio: to be made and used within one running event loop. Arguments and errors are `Client`'s."""

    def __init__(self, address: str | None = None, *, api_key: str | None = None, tls: bool | Tls = False) -> None:
        connection = resolve(address, api_key, tls)
        self.address = connection.address
        self._metadata = connection.metadata
        if connection.credentials is None:
            self._channel = grpc.aio.insecure_channel(connection.address, connection.options)
        else:
            self._channel = grpc.aio.secure_channel(connection.address, connection.credentials, connection.options)
        self._stub: Any = service_pb2_grpc.EpoServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._reached = False

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls; jobs go on."""
        await self._channel.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.address!r})"

    async def dream(self, objective: Objective, *, request_id: str | None = None, **spec: object) -> AsyncRun:
        """See `Client.dream`."""
        return AsyncRun(self, await self._call("CreateJob", create_request(objective, request_id, spec)))

    async def job(self, job_id: str) -> AsyncRun:
        """See `Client.job`."""
        return AsyncRun(self, await self._call("GetJob", service_pb2.GetJobRequest(id=job_id)))

    async def jobs(self, *states: str) -> AsyncIterator[AsyncRun]:
        """See `Client.jobs`."""
        request = service_pb2.ListJobsRequest()
        fields.fill(request, {"states": states}, "jobs")
        while True:
            page = await self._call("ListJobs", request)
            for job in page.jobs:
                yield AsyncRun(self, job)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def score(self, objective: Objective, prompts: Sequence[str | Sequence[int]], **around: object) -> pd.DataFrame:
        """See `Client.score`."""
        request = service_pb2.ScoreRequest()
        fields.fill(request, {"objective": objective, "prompts": prompts, **around}, "score")
        reply = await self._call("Score", request, timeout=SCORE_TIMEOUT)
        return frame([ScoredPrompt.of(score) for score in reply.scores])

    async def attribute(
        self,
        objective: Objective,
        prompt: str | Sequence[int],
        *,
        substitutes: int | None = None,
        progress: bool = True,
        **around: object,
    ) -> Attribution:
        """See `Client.attribute`."""
        request = request_for_prompt({"objective": objective, "prompt": prompt, "substitutes": substitutes, **around})
        return await self._attribute(request, progress)

    async def tokenize(self, text: str) -> list[tuple[int, str]]:
        """See `Client.tokenize`."""
        reply = await self._call("Tokenize", service_pb2.TokenizeRequest(text=text))
        return [(token.id, token.text) for token in reply.tokens]

    async def upload_vector(self, values: npt.ArrayLike) -> str:
        """See `Client.upload_vector`."""
        reply: service_pb2.UploadedVector = await self._call("UploadVector", service_pb2.UploadVectorRequest(npy=npy(values)))
        return reply.name

    async def model(self) -> model_pb2.Model:
        """See `Client.model`."""
        info: service_pb2.GetServerInfoResponse = await self._call("GetServerInfo", service_pb2.GetServerInfoRequest())
        return info.model

    async def _call(self, method: str, request: object, *, repeatable: bool = True, timeout: float = TIMEOUT) -> Any:
        retry = Retry(CALL_PATIENCE)
        while True:
            try:
                reply = await getattr(self._stub, method)(request, timeout=timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                problem = errors.from_rpc(error, self.address)
            else:
                self._reached = True
                return reply
            # A server that was never there is an error at once.
            if not repeatable or not (self._reached or problem.retry_after):
                raise problem
            await asyncio.sleep(retry.failed(problem))

    async def _watch(self, cursor: Cursor, bar: Bar) -> AsyncIterator[job_pb2.Step]:
        retry = Retry(WATCH_PATIENCE)
        while True:
            call = self._stub.WatchJob(cursor.request(), metadata=self._metadata)
            problem: errors.EpoError = stream_broke()
            try:
                async for response in call:
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
            await asyncio.sleep(delay)

    async def _attribute(self, request: attribution_pb2.AttributeRequest, progress: bool, objective: Objective | None = None) -> Attribution:
        retry = Retry(CALL_PATIENCE)
        with TokenBar(progress) as bar:
            while True:
                parts = Parts(bar)
                call = self._stub.Attribute(request, metadata=self._metadata)
                try:
                    async for response in call:
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
                await asyncio.sleep(delay)

    async def _read_history(self, job_id: str, pools: Pools) -> None:
        retry = Retry(CALL_PATIENCE)
        while True:
            before = len(pools)
            request = service_pb2.GetHistoryRequest(id=job_id, first_iteration=before)
            try:
                async for iteration in self._stub.GetHistory(request, metadata=self._metadata):
                    pools.add(iteration)
                return
            except grpc.RpcError as error:
                problem = errors.from_rpc(error, self.address)
            await asyncio.sleep(retry.failed(problem, heard=len(pools) > before))


class AsyncRun(RunBase):
    """`Run` for asyncio: `async for step in run`. Plots are the results': `(await run.results()).plot_frontier()`."""

    def __init__(self, client: AsyncClient, job: job_pb2.Job) -> None:
        super().__init__(job)
        self._client = client

    def __aiter__(self) -> AsyncIterator[Step]:
        return self.steps()

    async def steps(self, first: int = 0, progress: bool = True) -> AsyncIterator[Step]:
        """See `Run.steps`."""
        cursor = self._cursor(first)
        with Bar(self._job, progress) as bar:
            async for step in self._client._watch(cursor, bar):
                yield Step.of(step)
        self._finish()

    async def wait(self, progress: bool = True) -> AsyncRun:
        """See `Run.wait`."""
        cursor = self._cursor(latest=True)
        with Bar(self._job, progress) as bar:
            async for _ in self._client._watch(cursor, bar):
                pass
        self._finish()
        return self

    async def refresh(self) -> AsyncRun:
        """See `Run.refresh`."""
        self._job.CopyFrom(await self._client._call("GetJob", service_pb2.GetJobRequest(id=self.id)))
        return self

    async def frontier(self, kind: FrontierKind = "lambda") -> pd.DataFrame:
        """See `Run.frontier`."""
        request = frontier_request(self.id, kind)
        require_steps((await self.refresh())._job)
        return frontier_of(await self._client._call("GetFrontier", request), self._job)

    async def history(self) -> History:
        """See `Run.history`."""
        require_steps((await self.refresh())._job)
        await self._client._read_history(self.id, self._pools)
        return self._history()

    async def results(self) -> Results:
        """See `Run.results`."""
        history = await self.history()
        frontier = await self.frontier()
        job = job_pb2.Job()
        job.CopyFrom(self._job)
        return Results(job, history, frontier)

    async def attribute(
        self,
        point: int | None = None,
        *,
        prompt: str | Sequence[int] | None = None,
        substitutes: int | None = None,
        progress: bool = True,
    ) -> Attribution:
        """See `Run.attribute`."""
        await self.refresh()
        if prompt is None:
            require_steps(self._job)
        if prompt is None and point is None:
            # By its ids, since the points of a job under way move.
            prompt = best_prompt(await self.frontier())
        request = request_for_job(self._job, point, prompt, substitutes)
        if prompt is not None:
            require_model(self._job, await self._client.model())
        return await self._client._attribute(request, progress, self.objective)

    async def save(self, path: str | os.PathLike[str]) -> None:
        """See `Results.save`."""
        (await self.results()).save(path)

    async def cancel(self) -> AsyncRun:
        """See `Run.cancel`."""
        return await self._move("CancelJob", service_pb2.CancelJobRequest(id=self.id))

    async def pause(self) -> AsyncRun:
        """See `Run.pause`."""
        return await self._move("PauseJob", service_pb2.PauseJobRequest(id=self.id))

    async def resume(self) -> AsyncRun:
        """See `Run.resume`."""
        return await self._move("ResumeJob", service_pb2.ResumeJobRequest(id=self.id))

    async def delete(self) -> None:
        """See `Run.delete`."""
        await self._client._call("DeleteJob", service_pb2.DeleteJobRequest(id=self.id), repeatable=False)

    async def _move(self, method: str, request: object) -> AsyncRun:
        # A repeat of what was done already would be refused.
        self._job.CopyFrom(await self._client._call(method, request, repeatable=False))
        return self
