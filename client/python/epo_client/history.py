"""Everything that a run scored, and the frontier of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from epo_client._proto import job_pb2

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class History:
    """The pools of T iterations, P prompts each (the parents, one a slot, then their children) of n tokens, from which M slots kept one each.

    A job with history="frontier" keeps the survivors alone: P is then M.
    """

    # [T, P, n]
    ids: Ints
    # [T, P], in nats a token.
    xentropy: Floats
    # [T, P]
    target: Floats
    # [T, M]: indices into the pool.
    keep: Ints
    # Whether the run has, or had, more iterations to go than these.
    partial: bool = False
    # The job's constraint: what is above it was scored, but enters no frontier.
    max_cross_entropy: float | None = None

    @property
    def eligible(self) -> npt.NDArray[np.bool_]:
        """[T, P]: what may enter a frontier. Not what has no number for its target or cross-entropy, nor what is above the ceiling."""
        eligible = ~(np.isnan(self.target) | np.isnan(self.xentropy))
        if self.max_cross_entropy is not None:
            # As the server compares it: the ceiling is no float32.
            eligible &= self.xentropy.astype(np.float64) <= self.max_cross_entropy
        return eligible

    def subset(self, iterations: slice) -> History:
        """The same of some iterations."""
        arrays = {name: getattr(self, name)[iterations] for name in ("ids", "xentropy", "target", "keep")}
        return dataclasses.replace(self, **arrays)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        iterations, pool, tokens = self.ids.shape
        return f"History({iterations} iterations of {pool} prompts of {tokens} tokens{', partial' if self.partial else ''})"


@dataclass
class Pools:
    """Collects a history, iteration by iteration."""

    _ids: list[Ints] = field(default_factory=list)
    _xentropy: list[Floats] = field(default_factory=list)
    _target: list[Floats] = field(default_factory=list)
    _keep: list[Ints] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, iteration: job_pb2.Iteration) -> None:
        """Takes the next iteration; one that is known already changes nothing."""
        if iteration.index < len(self):
            return
        assert iteration.index == len(self), f"iteration {iteration.index} came after {len(self)} of them"
        self._ids.append(np.array([prompt.ids for prompt in iteration.ids], np.int32))
        self._xentropy.append(np.array(iteration.cross_entropy, np.float32))
        self._target.append(np.array(iteration.target, np.float32))
        self._keep.append(np.array(iteration.keep, np.int32))

    def history(self, partial: bool, max_cross_entropy: float | None) -> History:
        """What came so far: at least one iteration."""
        ids, keep = np.stack(self._ids), np.stack(self._keep)
        return History(ids, np.stack(self._xentropy), np.stack(self._target), keep, partial, max_cross_entropy)


@dataclass(frozen=True)
class ParetoFrontier:
    """The best of a history under each cross-entropy penalty.

    `Xvs` are the penalties; `full_target` and `full_xentropy` what is best under each; `unique` the indices into these of each distinct
    prompt; `target`, `xentropy`, `ids` ([points, n]) and `text` the distinct prompts themselves, by cross-entropy. `text` is empty unless
    a decoder was given.
    """

    Xvs: Doubles
    full_target: Floats
    full_xentropy: Floats
    unique: npt.NDArray[np.intp]
    target: Floats
    xentropy: Floats
    ids: Ints
    text: list[str]


def build_pareto_frontier(
    histories: History | Sequence[History], Xvs: npt.ArrayLike | None = None, decode: Callable[[list[int]], str] | None = None
) -> ParetoFrontier:
    """The frontier of all that the histories scored: for each penalty the first prompt with the least -target + penalty * xentropy.

    Of one job's whole history it has the points of `Run.frontier`. Survivors alone (history="frontier") may lack some of them: those that no
    slot kept. Penalties are by default 1 / linspace(0, 50, 1000)[1:]. `decode` makes a text of token ids, as a tokenizer's `decode` does.
    Raises ValueError without histories or penalties, when nothing is eligible, and for histories of prompts of different lengths.
    """
    histories = [histories] if isinstance(histories, History) else list(histories)
    if not histories:
        raise ValueError("histories: there is none; give at least one")
    penalties = 1.0 / np.linspace(0, 50, 1000)[1:] if Xvs is None else np.asarray(Xvs, np.float64).ravel()
    if not penalties.size or np.isnan(penalties).any():
        raise ValueError("Xvs: give numbers, at least one")
    target = np.concatenate([history.target.ravel() for history in histories])
    xentropy = np.concatenate([history.xentropy.ravel() for history in histories])
    lengths = sorted({history.ids.shape[-1] for history in histories})
    if len(lengths) > 1:
        raise ValueError(f"histories: their prompts have {' and '.join(map(str, lengths))} tokens; give those of one length")
    ids = np.concatenate([history.ids.reshape(-1, history.ids.shape[-1]) for history in histories])
    usable = np.flatnonzero(np.concatenate([history.eligible.ravel() for history in histories]))
    if not usable.size:
        raise ValueError("there is no scored prompt to make a frontier of")
    target, xentropy, ids = target[usable], xentropy[usable], ids[usable]
    # float64, as the server compares them; a penalty at a time, since a history is long.
    wide_target, wide_xentropy = target.astype(np.float64), xentropy.astype(np.float64)
    best = np.array([np.argmin(penalty * wide_xentropy - wide_target) for penalty in penalties])
    # A prompt scored twice, as a child and as a parent, is one point: the one of the largest penalty.
    _, first = np.unique(ids[best], axis=0, return_index=True)
    order = sorted(first, key=lambda i: (xentropy[best[i]], target[best[i]]))
    chosen = best[order]
    return ParetoFrontier(
        Xvs=penalties,
        full_target=target[best],
        full_xentropy=xentropy[best],
        unique=np.array(order, np.intp),
        target=target[chosen],
        xentropy=xentropy[chosen],
        ids=ids[chosen],
        text=[decode(row.tolist()) for row in ids[chosen]] if decode else [],
    )
