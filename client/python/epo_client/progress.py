"""A bar that shows how far a job is."""

from __future__ import annotations

import warnings
from typing import Any

from epo_client._proto import job_pb2
from epo_client.watching import describe

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm falls back to text, which is all right.
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


class Bar:
    """A tqdm bar of a job's iterations; draws nothing when not `shown`."""

    def __init__(self, job: job_pb2.Job, shown: bool) -> None:
        self._bar: Any = tqdm(total=job.spec.iterations, unit="step", desc=_name(job), disable=not shown)
        self._lost = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def found(self, job: job_pb2.Job) -> None:
        """The job as the server says it is."""
        if self._lost:
            self._bar.set_postfix_str("", refresh=False)
            self._lost = False
        self._bar.total = job.spec.iterations
        self._bar.set_description_str(_name(job))

    def step(self, step: job_pb2.Step, job: job_pb2.Job) -> None:
        """A step, after which there are as many as its index and one more, and the job, which runs or has run on."""
        self._bar.set_description_str(_name(job), refresh=False)
        points = step.frontier.points
        if points:
            self._bar.set_postfix_str(f"best {points[-1].target:.3g} of {len(points)} points", refresh=False)
        self._bar.update(step.index + 1 - self._bar.n)

    def lost(self, error: Exception) -> None:
        """The connection broke for this reason; another try follows."""
        self._lost = True
        self._bar.set_postfix_str(f"trying again: {error}")

    def ended(self, job: job_pb2.Job) -> None:
        """What the job came to."""
        self._bar.set_description_str(_name(job), refresh=False)
        self._bar.update(job.completed_iterations - self._bar.n)


class TokenBar:
    """A tqdm bar of the tokens of a prompt that is attributed; draws nothing when not `shown`."""

    def __init__(self, shown: bool) -> None:
        # Made when the first token is known to come, so that what is refused leaves no bar behind.
        self._bar: Any = None
        self._shown = shown

    def __enter__(self) -> TokenBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def started(self, tokens: int) -> None:
        """So many tokens are to come; of a call that is tried again, all of them."""
        if self._bar is None:
            self._bar = tqdm(total=tokens, unit="token", desc="attribution", disable=not self._shown)
        else:
            self._bar.set_postfix_str("", refresh=False)
            self._bar.reset(tokens)

    def token(self) -> None:
        self._bar.update()

    def lost(self, error: Exception) -> None:
        """See `Bar.lost`."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"trying again: {error}")


def _name(job: job_pb2.Job) -> str:
    if job.state in (job_pb2.Job.QUEUED, job_pb2.Job.PAUSED):
        return describe(job).lower()
    return f"{job.id[:8]} {job_pb2.Job.State.Name(job.state).lower()}"
