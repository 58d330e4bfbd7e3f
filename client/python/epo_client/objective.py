"""What a search maximises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epo_client import fields
from epo_client._proto import objective_pb2


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
        """What its values are, for an axis: as in "L8.N1 activation"."""
        label = " + ".join(_name(term) for term in self.terms)
        if self.message.combination == objective_pb2.Objective.SOFT_MIN:
            label = f"soft minimum of {label.replace(' + ', ', ')}"
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
    kind = term.WhichOneof("kind")
    if kind is None:
        return "target"
    if kind == "neuron":
        return f"L{term.neuron.layer}.N{term.neuron.neuron} activation"
    layer = getattr(getattr(term, kind), "layer", None)
    name = kind.replace("_", " ")
    return name if layer is None else f"L{layer} {name}"
