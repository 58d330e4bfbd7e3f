"""What a search maximises."""

from __future__ import annotations

from dataclasses import dataclass

from epo_client import fields
from epo_client._proto import objective_pb2


@dataclass(frozen=True)
class Objective:
    """One number read inside the model. Made by `neuron` and the like, or by `objective` for every kind that the server knows."""

    message: objective_pb2.Objective

    @property
    def kind(self) -> str:
        """The field of the message that is set, such as "neuron"."""
        return self.message.WhichOneof("kind") or ""

    @property
    def label(self) -> str:
        """What its values are, for an axis: as in "L8.N1 activation"."""
        if self.kind == "neuron":
            return f"L{self.message.neuron.layer}.N{self.message.neuron.neuron} activation"
        return self.kind or "target"

    def __repr__(self) -> str:
        values = getattr(self.message, self.kind).ListFields() if self.kind else []
        # Vectors would fill the screen.
        shown = [f"{field.name}={_short(value)}" for field, value in values]
        return f"Objective({', '.join([self.kind, *shown])})"


def objective(kind: str, /, **values: object) -> Objective:
    """Any kind of objective by its name and fields in the wire contract: `objective("neuron", layer=8, neuron=1)`.

    Raises TypeError for a kind or a field that this version of the contract has not.
    """
    message = objective_pb2.Objective()
    fields.fill(message, {kind: values}, "objective")
    # A kind all of whose fields are 0 is set nevertheless.
    getattr(message, kind).SetInParent()
    return Objective(message)


def neuron(layer: int, index: int) -> Objective:
    """The activation of an MLP neuron at the prompt's last token; both counted from 0."""
    return objective("neuron", layer=layer, neuron=index)


def _short(value: object) -> str:
    text = str(value).strip().replace("\n", " ")
    return text if len(text) <= 40 else f"{text[:37]}..."
