"""A job seen from here."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from epo_client import errors
from epo_client._proto import job_pb2, service_pb2
from epo_client.attribution import Attribution, best_prompt, request_for_job, require_model
from epo_client.history import History, Pools
from epo_client.objective import Objective
from epo_client.progress import Bar
from epo_client.results import Results, ceiling_of, frontier_of, is_partial, require_steps
from epo_client.steps import Step
from epo_client.watching import TERMINAL, Cursor, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from epo_client.client import Client

FrontierKind = Literal["lambda", "pareto"]


def frontier_request(job_id: str, kind: FrontierKind) -> service_pb2.GetFrontierRequest:
    kinds = get_args(FrontierKind)
    if not isinstance(kind, str) or kind.lower() not in kinds:
        raise ValueError(f"frontier: there is no kind {kind!r}; give {' or '.join(map(repr, kinds))}")
    return service_pb2.GetFrontierRequest(id=job_id, kind=kind.upper())


class RunBase:
    """What needs no server: what is known of the job."""

    def __init__(self, job: job_pb2.Job) -> None:
        self._job = job
        # The history is append-only: what was read once is kept.
        self._pools = Pools()

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def job(self) -> job_pb2.Job:
        """The job as the server last told it; `refresh` asks again."""
        return self._job

    @property
    def state(self) -> str:
        """As last told: QUEUED, RUNNING, PAUSED, SUCCEEDED, FAILED or CANCELLED."""
        return job_pb2.Job.State.Name(self._job.state)

    @property
    def ended(self) -> bool:
        """As last told: whether there is no step to come."""
        return self._job.state in TERMINAL

    @property
    def objective(self) -> Objective:
        return Objective(self._job.spec.objective)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.objective.label}, {describe(self._job)})"

    def _repr_html_(self) -> str:
        return f"<code>{self.id}</code> {html.escape(self.objective.label)}, {html.escape(describe(self._job))}"

    def _cursor(self, first: int = 0, latest: bool = False) -> Cursor:
        return Cursor(self.id, after=first, latest=latest, job=self._job)

    def _finish(self) -> None:
        if self._job.state == job_pb2.Job.FAILED:
            raise errors.of_job(self.id, self._job.error)

    def _history(self) -> History:
        return self._pools.history(is_partial(self._job, len(self._pools)), ceiling_of(self._job))


class Run(RunBase):
    """A job on a server, made by `Client.dream` or `Client.job`. Not for use from several threads at once.

    Iterating gives every step from the first one on, under a progress bar, and ends when the job does; leaving the loop leaves the job
    running. A connection that breaks is taken up again where it was.
    """

    def __init__(self, client: Client, job: job_pb2.Job) -> None:
        super().__init__(job)
        self._client = client

    def __iter__(self) -> Iterator[Step]:
        return self.steps()

    def steps(self, first: int = 0, progress: bool = True) -> Iterator[Step]:
        """The steps from iteration `first` on, as they come. Raises JobFailedError after the last step of a job that failed."""
        cursor = self._cursor(first)
        with Bar(self._job, progress) as bar:
            for step in self._client._watch(cursor, bar):
                yield Step.of(step)
        self._finish()

    def wait(self, progress: bool = True) -> Run:
        """Returns when the job has ended. Raises JobFailedError if it failed."""
        cursor = self._cursor(latest=True)
        with Bar(self._job, progress) as bar:
            for _ in self._client._watch(cursor, bar):
                pass
        self._finish()
        return self

    def refresh(self) -> Run:
        """Asks the server how the job is."""
        self._job.CopyFrom(self._client._call("GetJob", service_pb2.GetJobRequest(id=self.id)))
        return self

    def frontier(self, kind: FrontierKind = "lambda") -> pd.DataFrame:
        """The best prompts, by cross-entropy: columns `target`, `xentropy`, `text` and `ids`.

        "lambda" takes the best under each of the published penalties, "pareto" all that no other dominates. Of a job under way it is the
        frontier so far, marked in `.attrs["partial"]` and in the table's corner. Raises NoStepsError before the first step.
        """
        request = frontier_request(self.id, kind)
        require_steps(self.refresh()._job)
        return frontier_of(self._client._call("GetFrontier", request), self._job)

    def history(self) -> History:
        """Everything scored so far. Raises NoStepsError before the first step."""
        require_steps(self.refresh()._job)
        self._client._read_history(self.id, self._pools)
        return self._history()

    def results(self) -> Results:
        """History and frontier together, apart from the server. Of a job under way the frontier may be a step ahead."""
        history = self.history()
        frontier = self.frontier()
        job = job_pb2.Job()
        job.CopyFrom(self._job)
        return Results(job, history, frontier)

    def attribute(
        self,
        point: int | None = None,
        *,
        prompt: str | Sequence[int] | None = None,
        substitutes: int | None = None,
        progress: bool = True,
    ) -> Attribution:
        """What the target of a prompt owes to each of its tokens, under the job's objective: see `Client.attribute`.

        `point` is a row of `frontier()`, by default the one with the greatest target; or `prompt` is any other one, a text or token ids.
        Raises NoStepsError for a point before the first step, StateError where another model is served than the job's.
        """
        self.refresh()
        if prompt is None:
            require_steps(self._job)
        if prompt is None and point is None:
            # By its ids, since the points of a job under way move.
            prompt = best_prompt(self.frontier())
        request = request_for_job(self._job, point, prompt, substitutes)
        if prompt is not None:
            require_model(self._job, self._client.model())
        return self._client._attribute(request, progress, self.objective)

    def plot_frontier(self, ax: Axes | None = None) -> Axes:
        """See `Results.plot_frontier`."""
        return self.results().plot_frontier(ax)

    def plot_evolution(self, iterations: Sequence[int] | None = None, ax: Axes | None = None) -> Axes:
        """See `Results.plot_evolution`."""
        return self.results().plot_evolution(iterations, ax)

    def plot_thresholds(self, thresholds: Sequence[float] | None = None, ax: Axes | None = None) -> Axes:
        """See `Results.plot_thresholds`."""
        return self.results().plot_thresholds(thresholds, ax)

    def save(self, path: str | os.PathLike[str]) -> None:
        """See `Results.save`."""
        self.results().save(path)

    def cancel(self) -> Run:
        """Stops the job after the step under way and keeps what it found. Raises StateError when it has ended."""
        return self._move("CancelJob", service_pb2.CancelJobRequest(id=self.id))

    def pause(self) -> Run:
        """Holds the job after the step under way, until `resume`."""
        return self._move("PauseJob", service_pb2.PauseJobRequest(id=self.id))

    def resume(self) -> Run:
        return self._move("ResumeJob", service_pb2.ResumeJobRequest(id=self.id))

    def delete(self) -> None:
        """Deletes the job and its history from the server. Raises StateError while it has not ended."""
        self._client._call("DeleteJob", service_pb2.DeleteJobRequest(id=self.id), repeatable=False)

    def _move(self, method: str, request: object) -> Run:
        # A repeat of what was done already would be refused.
        self._job.CopyFrom(self._client._call(method, request, repeatable=False))
        return self
