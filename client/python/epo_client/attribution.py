"""What a prompt's target owes to each of its tokens: the paper's causal token attribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np
import pandas as pd

from epo_client import attribution_html, fields
from epo_client._proto import attribution_pb2, job_pb2, model_pb2
from epo_client.errors import StateError, UnavailableError
from epo_client.objective import Objective
from epo_client.progress import TokenBar
from epo_client.steps import ScoredPrompt


@dataclass(frozen=True)
class Substitute:
    """Another token in a token's place, and what the whole prompt then scores; `xentropy` is NaN where nothing is predicted."""

    id: int
    text: str
    target: float
    xentropy: float


@dataclass(frozen=True)
class TokenAttribution:
    """One token of the prompt, and the substitutes that were tried in its place: those that the target's gradient promises the most, best
    promise first.

    `drop_to_best` is the prompt's target less the greatest of a substitute, what no other token makes up for (negative where another token
    does better); `drop_to_worst` the prompt's target less the least of a substitute, what is at stake.
    """

    position: int
    id: int
    text: str
    substitutes: tuple[Substitute, ...]
    drop_to_best: float
    drop_to_worst: float

    @classmethod
    def of(cls, message: attribution_pb2.TokenAttribution) -> TokenAttribution:
        tried = tuple(
            Substitute(other.id, other.text, other.target, other.cross_entropy if other.HasField("cross_entropy") else float("nan"))
            for other in message.substitutes
        )
        return cls(message.position, message.id, message.text, tried, message.drop_to_best, message.drop_to_worst)

    @property
    def ranked(self) -> list[Substitute]:
        """The substitutes from the greatest target they give to the least, without those that give none (NaN)."""
        return sorted((other for other in self.substitutes if not math.isnan(other.target)), key=lambda other: -other.target)


@dataclass(frozen=True, repr=False)
class Attribution:
    """What `prompt`, scored under `objective`, owes to each of its `tokens`, in order. A notebook shows it as a strip of bars."""

    objective: Objective
    prompt: ScoredPrompt
    tokens: tuple[TokenAttribution, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row a token, by position: `text`, `id`, `drop_to_best`, `drop_to_worst`, and the texts of the `best` and the `worst` substitute."""
        ranked = [token.ranked for token in self.tokens]
        return pd.DataFrame(
            {
                "text": [token.text for token in self.tokens],
                "id": np.array([token.id for token in self.tokens], np.int32),
                "drop_to_best": np.array([token.drop_to_best for token in self.tokens], np.float32),
                "drop_to_worst": np.array([token.drop_to_worst for token in self.tokens], np.float32),
                "best": [others[0].text if others else None for others in ranked],
                "worst": [others[-1].text if others else None for others in ranked],
            },
            index=pd.RangeIndex(len(self.tokens), name="position"),
        )

    @property
    def substitutes(self) -> pd.DataFrame:
        """A row a substitute that was tried: `position`, its `text` and `id`, and the `target` and `xentropy` of the whole prompt with it."""
        tried = [(token.position, other) for token in self.tokens for other in token.substitutes]
        return pd.DataFrame(
            {
                "position": np.array([position for position, _ in tried], np.int32),
                "text": [other.text for _, other in tried],
                "id": np.array([other.id for _, other in tried], np.int32),
                "target": np.array([other.target for _, other in tried], np.float32),
                "xentropy": np.array([other.xentropy for _, other in tried], np.float32),
            }
        )

    def __repr__(self) -> str:
        return f"Attribution({self.prompt.text!r}, {self.objective.label} {self.prompt.target:.4g}, {len(self.tokens)} tokens)"

    def _repr_html_(self) -> str:
        return attribution_html.strip(self)


@dataclass
class Parts:
    """Collects what one call brings, and moves the bar."""

    bar: TokenBar
    prompt: ScoredPrompt | None = None
    tokens: list[TokenAttribution] = field(default_factory=list)

    def add(self, response: attribution_pb2.AttributeResponse) -> None:
        if response.HasField("prompt"):
            self.prompt = ScoredPrompt.of(response.prompt)
            self.bar.started(len(self.prompt.ids))
        elif response.HasField("token"):
            self.tokens.append(TokenAttribution.of(response.token))
            self.bar.token()

    def whole(self, objective: Objective) -> Attribution:
        """Raises UnavailableError when the call ended before it brought every token."""
        if self.prompt is None or [token.id for token in self.tokens] != list(self.prompt.ids):
            raise UnavailableError("the stream ended before the attribution did", code=grpc.StatusCode.UNAVAILABLE)
        return Attribution(objective, self.prompt, tuple(self.tokens))


def request_for_prompt(values: dict[str, object]) -> attribution_pb2.AttributeRequest:
    """From the arguments of `Client.attribute`."""
    request = attribution_pb2.AttributeRequest()
    fields.fill(request, values, "attribute")
    return request


def request_for_job(
    job: job_pb2.Job, point: int | None, prompt: str | Sequence[int] | None, substitutes: int | None
) -> attribution_pb2.AttributeRequest:
    """A point of the job's frontier (0, about which the server has its own to say, when neither is given), or any prompt under the job's
    objective, in the units that the job measured."""
    if prompt is None:
        return request_for_prompt({"point": {"job": job.id, "index": point}, "substitutes": substitutes})
    if point is not None:
        raise TypeError("attribute: give a point of the frontier or a prompt, not both")
    spec = job.spec
    request = request_for_prompt({"objective": spec.objective, "prompt": prompt, "contexts": spec.contexts, "substitutes": substitutes})
    request.across_contexts, request.fluency_window = spec.across_contexts, spec.fluency_window
    for term, scale in zip(request.objective.terms, job.term_scales):
        if term.HasField("measured_scale"):
            term.constant_scale = scale
    return request


def require_model(job: job_pb2.Job, model: model_pb2.Model) -> None:
    """Raises StateError where another model is served than the job's."""
    if job.model_fingerprint != model.fingerprint:
        raise StateError(f'job "{job.id}" is of another model', code=grpc.StatusCode.FAILED_PRECONDITION)


def best_prompt(frontier: pd.DataFrame) -> list[int] | None:
    """The ids of the prompt with the greatest target; None of an empty frontier."""
    if frontier.empty:
        return None
    ids: list[int] = frontier.ids.iloc[int(frontier.target.to_numpy().argmax())].tolist()
    return ids
