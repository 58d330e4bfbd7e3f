"""What a step found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from epo_client._proto import frontier_pb2, job_pb2


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt with its target (more is better) and its cross-entropy in nats a token (less is more fluent)."""

    ids: tuple[int, ...]
    text: str
    target: float
    xentropy: float

    @classmethod
    def of(cls, message: frontier_pb2.ScoredPrompt) -> ScoredPrompt:
        """NaN where the server gave no cross-entropy, as for a prompt of one token."""
        xentropy = message.cross_entropy if message.HasField("cross_entropy") else float("nan")
        return cls(tuple(message.ids), message.text, message.target, xentropy)


@dataclass(frozen=True)
class Slot:
    """A slot of the population: its cross-entropy penalty, its survivor, and the text of the token most probable after that."""

    penalty: float
    prompt: ScoredPrompt
    next_token: str


@dataclass(frozen=True)
class Step:
    """One iteration, counted from 0, as a watcher is told of it.

    `points` is the frontier of everything scored so far, by cross-entropy; `slots` are the survivors, in the order of penalties;
    `restart_penalty` is None unless this iteration restarted; `evaluations` counts the prompts scored so far; `seconds` is what the step
    took.
    """

    index: int
    points: tuple[ScoredPrompt, ...]
    slots: tuple[Slot, ...]
    restart_penalty: float | None
    seconds: float
    evaluations: int

    @classmethod
    def of(cls, message: job_pb2.Step) -> Step:
        return cls(
            index=message.index,
            points=tuple(ScoredPrompt.of(point) for point in message.frontier.points),
            slots=tuple(Slot(slot.penalty, ScoredPrompt.of(slot.prompt), slot.next_token_text) for slot in message.slots),
            restart_penalty=message.restart_penalty if message.HasField("restart_penalty") else None,
            seconds=message.seconds,
            evaluations=message.evaluations,
        )

    @property
    def frontier(self) -> pd.DataFrame:
        """The points as a table: see `frame`."""
        return frame(self.points)

    def __str__(self) -> str:
        best = f", best {self.points[-1].target:.3f}" if self.points else ""
        return f"step {self.index}: {len(self.points)} points{best}, {self.evaluations} prompts scored"


def frame(points: Sequence[ScoredPrompt]) -> pd.DataFrame:
    """A row a prompt: `target`, `xentropy`, `text` and `ids` (an array)."""
    return pd.DataFrame(
        {
            "target": np.array([point.target for point in points], np.float32),
            "xentropy": np.array([point.xentropy for point in points], np.float32),
            "text": [point.text for point in points],
            "ids": [np.array(point.ids, np.int32) for point in points],
        }
    )
