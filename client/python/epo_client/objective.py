"""What a search maximises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from epo_client import fields
from epo_client._proto import frontier_pb2, objective_pb2

# Of a text within a label.
_LONGEST_TEXT = 24


@dataclass(frozen=True)
class Objective:
    """Numbers read inside the model, combined into one. Made by `neuron`, by `objective` for every kind of term, and by `combine`."""

    message: objective_pb2.Objective

    @property
    def terms(self) -> Sequence[objective_pb2.Term]:
        """What is combined: at least one."""
        if self.message.HasField("neuron"):
            return [objective_pb2.Term(neuron=self.message.neuron)]
        return self.message.terms

    @property
    def label(self) -> str:
        """What its values are, for an axis: as in "L8.N1 activation" or "L8.N1 activation - 0.5 × logit of " dog"". A scale that
        the job measures is σ."""
        names = [_name(term) for term in self.terms]
        if self.message.combination == objective_pb2.Objective.SOFT_MIN:
            label = f"soft minimum of {', '.join(names)}"
        else:
            label = "".join([*names[:1], *(f" - {name[1:]}" if name.startswith("-") else f" + {name}" for name in names[1:])])
        return f"-({label})" if self.message.goal == objective_pb2.Objective.MINIMIZE else label

    def __repr__(self) -> str:
        return f"Objective({self.label})"


def objective(kind: str, /, **values: object) -> Objective:
    """One term of any kind by its name and fields in the wire contract's Term: `objective("neuron", layer=8, neuron=1)`,
    `objective("direction", layer=12, point="post_block", vector=array)`, `objective("logit", token=" dog")`.

    `position`, `weight` and a scale are the term's own. Positions may be an index, tokens an id or a text, vectors an array or the name of
    one that `Client.upload_vector` gave. Raises TypeError for a kind or a field that this version of the contract has not.
    """
    term = objective_pb2.Term()
    kinds = {field.name for field in term.DESCRIPTOR.oneofs_by_name["kind"].fields}
    own = {name: value for name, value in values.items() if name in term.DESCRIPTOR.fields_by_name and name not in kinds}
    of_kind = {name: value for name, value in values.items() if name not in own}
    fields.fill(term, {kind: of_kind, **own}, "objective")
    # A kind all of whose fields are 0 is set nevertheless.
    getattr(term, kind).SetInParent()
    return Objective(objective_pb2.Objective(terms=[term]))


def neuron(layer: int, index: int) -> Objective:
    """The activation of an MLP neuron at the prompt's last token; both counted from 0."""
    message = objective_pb2.Objective()
    fields.fill(message, {"neuron": {"layer": layer, "neuron": index}}, "neuron")
    message.neuron.SetInParent()
    return Objective(message)


def combine(*objectives: Objective, **how: object) -> Objective:
    """The terms of several objectives as one. `how` are the other fields of the wire contract's Objective: combination="soft_min",
    temperature=0.5, goal="minimize"; without them it is the weighted sum."""
    message = objective_pb2.Objective(terms=[term for part in objectives for term in part.terms])
    fields.fill(message, how, "combine")
    return Objective(message)


def _name(term: objective_pb2.Term) -> str:
    name = _kind(term)
    if term.HasField("constant_scale"):
        name += f" / {term.constant_scale:g}"
    elif term.measured_scale:
        name += " / σ"
    return f"{term.weight:g} × {name}" if term.HasField("weight") and term.weight != 1 else name


def _kind(term: objective_pb2.Term) -> str:
    kind = term.WhichOneof("kind")
    if kind is None:
        return "target"
    if kind == "neuron":
        return f"L{term.neuron.layer}.N{term.neuron.neuron} activation"
    if kind == "attention":
        return f"L{term.attention.layer}.H{term.attention.head} attention to {term.attention.key}"
    if kind == "logit":
        return f"logit of {_token(term.logit.token)}"
    if kind == "logit_difference":
        pair = term.logit_difference
        return f"logit of {_token(pair.token)} over {_token(pair.other) if pair.HasField('other') else 'all others'}"
    if kind == "continuation":
        return f"continuation {_prompt(term.continuation.text)}"
    layer = getattr(getattr(term, kind), "layer", None)
    name = kind.replace("_", " ")
    if kind == "cosine" and term.cosine.HasField("text"):
        name += f" with {_prompt(term.cosine.text)}"
    return name if layer is None else f"L{layer} {name}"


def _token(token: objective_pb2.TokenReference) -> str:
    return _quoted(token.text) if token.HasField("text") else f"token {token.id}"


def _prompt(prompt: frontier_pb2.Prompt) -> str:
    return _quoted(prompt.text) if prompt.HasField("text") else f"of {len(prompt.ids.ids)} tokens"


def _quoted(text: str) -> str:
    """In one line, with nothing that cannot be seen."""
    end = "…" if len(text) > _LONGEST_TEXT else ""
    text = text[: _LONGEST_TEXT - len(end)]
    return json.dumps(text, ensure_ascii=not text.isprintable())[:-1] + f'{end}"'
