"""A run's results, apart from the server: to plot, to keep, to load again."""

from __future__ import annotations

import json
import os
import secrets
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from google.protobuf import json_format

from epo_client._proto import frontier_pb2, job_pb2
from epo_client.errors import LoadError, NoStepsError
from epo_client.history import History
from epo_client.objective import Objective
from epo_client.steps import ScoredPrompt, frame
from epo_client.watching import TERMINAL, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMAT = 1
_ARRAYS = ("ids", "xentropy", "target", "keep")


@dataclass(frozen=True)
class Results:
    """What a job found: the job as it was then, its history and its frontier (see `Run.frontier`).

    A job that has not run all its iterations has partial results: `partial` says so, as do the plots' titles and the frontier's corner.
    """

    job: job_pb2.Job
    history: History
    frontier: pd.DataFrame

    @property
    def objective(self) -> Objective:
        return Objective(self.job.spec.objective)

    @property
    def partial(self) -> bool:
        return self.history.partial

    def plot_frontier(self, ax: Axes | None = None) -> Axes:
        """The frontier with each point's prompt beside it."""
        axes: Axes = _plots().frontier(self, ax)
        return axes

    def plot_evolution(self, iterations: Sequence[int] | None = None, ax: Axes | None = None) -> Axes:
        """The frontier after each of the numbers of `iterations`; by default a few, closer together at the start."""
        axes: Axes = _plots().evolution(self, iterations, ax)
        return axes

    def plot_thresholds(self, thresholds: Sequence[float] | None = None, ax: Axes | None = None) -> Axes:
        """For each threshold, the best target of each iteration's pool among prompts whose cross-entropy is below it; dashed lines are
        restarts. By default five thresholds spread over the frontier."""
        axes: Axes = _plots().thresholds(self, thresholds, ax)
        return axes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one .npz file that `load` reads; a file of that name is replaced, and its permissions kept, once the new one is whole."""
        path = Path(path)
        arrays: dict[str, Any] = {name: getattr(self.history, name) for name in _ARRAYS}
        arrays["format"] = np.array(_FORMAT)
        arrays["job"] = np.array(json_format.MessageToJson(self.job, indent=None))
        columns = ("target", "xentropy", "text", "ids")
        rows = [dict(zip(columns, row)) for row in self.frontier[list(columns)].itertuples(index=False)]
        # As JSON, because numpy's texts lose what ends in U+0000.
        arrays["frontier"] = np.array(json.dumps(rows, default=lambda value: value.tolist()))
        # tempfile's files are their owner's alone; this one has the permissions of any new file.
        temporary = path.absolute().with_name(f".{path.name}.{secrets.token_hex(8)}")
        with open(temporary, "xb") as file:
            try:
                np.savez_compressed(file, **arrays)
                if path.exists():
                    os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
                file.close()
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise

    def __repr__(self) -> str:
        return f"Results({self.job.id}, {describe(self.job)}, {len(self.frontier)} points{', partial' if self.partial else ''})"

    def _repr_html_(self) -> str:
        return f"<p>{self.job.id}: {self.objective.label}, {describe(self.job)}</p>{self.frontier.to_html()}"


def load(path: str | os.PathLike[str]) -> Results:
    """The results that `save` wrote. Raises LoadError for a file that is damaged or something else, OSError for one that cannot be read."""
    try:
        # Not of a plain .npy, which is no zip.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise LoadError(f"{path} is no saved run, or a damaged one: {error}") from None
    missing = [name for name in ("format", "job", "frontier", *_ARRAYS) if name not in arrays]
    if missing:
        raise LoadError(f"{path} is no saved run: it has no {missing[0]}")
    version = arrays["format"]
    if version.shape != () or version.dtype.kind not in "iu":
        raise LoadError(f"{path} is a damaged run: its format is no number")
    if version != _FORMAT:
        raise LoadError(f"{path} has format {version}; this version reads format {_FORMAT}")
    try:
        job = json_format.Parse(str(arrays["job"]), job_pb2.Job(), ignore_unknown_fields=True)
        frontier = frame(_points(json.loads(str(arrays["frontier"]))))
    except (json_format.ParseError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise LoadError(f"{path} is a damaged run: {error}") from None
    if not (job.id and job.spec.iterations and job.completed_iterations):
        raise LoadError(f"{path} is a damaged run: its job lacks an id, iterations or steps")
    ids, xentropy, target, keep = (arrays[name] for name in _ARRAYS)
    shaped = ids.ndim == 3 and len(ids) > 0 and xentropy.shape == target.shape == ids.shape[:2] and keep.ndim == 2 and len(keep) == len(ids)
    typed = [part.dtype for part in (ids, xentropy, target, keep)] == [np.int32, np.float32, np.float32, np.int32]
    if not shaped or not typed or np.any((keep < 0) | (keep >= ids.shape[1])):
        raise LoadError(f"{path} is a damaged run: its arrays do not fit together")
    history = History(ids, xentropy, target, keep, is_partial(job, len(ids)), ceiling_of(job))
    return Results(job, history, mark(frontier, job))


def _points(rows: Any) -> list[ScoredPrompt]:
    """Of what `save` wrote as JSON; of anything else TypeError or KeyError. numpy alone would take null for a number, and cut one to an id."""
    if not isinstance(rows, list):
        raise TypeError("its frontier is no list")
    points = []
    for i, row in enumerate(rows):
        point = ScoredPrompt(tuple(row["ids"]), row["text"], row["target"], row["xentropy"])
        if not (type(point.target) in (int, float) and type(point.xentropy) in (int, float) and type(point.text) is str):
            raise TypeError(f"point {i} of its frontier lacks a text or a score")
        if not all(type(token) is int for token in point.ids):
            raise TypeError(f"point {i} of its frontier has no list of token ids")
        points.append(point)
    return points


def require_steps(job: job_pb2.Job) -> None:
    """Raises NoStepsError for a job without steps."""
    if job.completed_iterations == 0:
        ended = job.state in TERMINAL
        hint = "it ended without one" if ended else "wait for it: for step in run, or run.wait()"
        raise NoStepsError(f"job {job.id} has no step yet ({describe(job)}); {hint}")


def is_partial(job: job_pb2.Job, steps: int) -> bool:
    return steps < job.spec.iterations


def ceiling_of(job: job_pb2.Job) -> float | None:
    constraints = job.spec.constraints
    return constraints.max_cross_entropy if constraints.HasField("max_cross_entropy") else None


def frontier_of(message: frontier_pb2.Frontier, job: job_pb2.Job) -> pd.DataFrame:
    """The frontier as a table, marked as partial where `job` is."""
    return mark(frame([ScoredPrompt.of(point) for point in message.points]), job)


def mark(table: pd.DataFrame, job: job_pb2.Job) -> pd.DataFrame:
    partial = is_partial(job, job.completed_iterations)
    state = job_pb2.Job.State.Name(job.state)
    table.attrs = {"job": job.id, "state": state, "steps": job.completed_iterations, "iterations": job.spec.iterations, "partial": partial}
    if partial:
        # Shown in the table's corner.
        table.columns.name = f"partial: {job.completed_iterations} of {job.spec.iterations} steps"
    return table


def _plots() -> ModuleType:
    try:
        from epo_client import plot
    except ModuleNotFoundError as error:
        raise ImportError(f"plots need matplotlib ({error}): pip install 'epo-client[plot]'") from None
    return plot
