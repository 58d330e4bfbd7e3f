"""Messages from keyword arguments, by the messages' own descriptors: a new field of the contract needs no line here."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def fill(message: Message, values: Mapping[str, object], what: str) -> None:
    """Sets the fields of `message` that `values` names; None leaves a field absent, for the server to fill in.

    Raises TypeError for a name that the message has not and for a value of the wrong type, ValueError for one out of range, each with the
    field's path, which begins with `what`.
    """
    known: Mapping[str, Any] = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if value is None:
            continue
        if name not in known:
            raise TypeError(_unknown(f"{what} has no field {name!r}", name, known))
        _set(message, known[name], value, f"{what}.{name}")


def _unknown(problem: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known)
    return f"{problem}; " + (f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}")


def _set(message: Message, field: Any, value: Any, path: str) -> None:
    if field.is_repeated:
        items = _items(value, path)
        values = [_single(field, item, f"{path}[{i}]") for i, item in enumerate(items)]
        _assign(lambda: getattr(message, field.name).extend(values), path)
        return
    single = _single(field, value, path)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, field.name).CopyFrom(single)
    else:
        _assign(lambda: setattr(message, field.name, single), path)


def _assign(action: Callable[[], None], path: str) -> None:
    try:
        action()
    except TypeError as error:
        raise TypeError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _items(value: Any, path: str) -> list[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{path}: give a list, not {value!r}")
    # numpy's numbers are taken as Python's.
    return list(value.tolist() if hasattr(value, "tolist") else value)


def _single(field: Any, value: Any, path: str) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        message = message_factory.GetMessageClass(field.message_type)()
        _make(message, value, path)
        return message
    if hasattr(value, "item"):
        value = value.item()
    if field.type == FieldDescriptor.TYPE_ENUM and isinstance(value, str):
        names: Mapping[str, Any] = field.enum_type.values_by_name
        if value.upper() not in names:
            raise ValueError(_unknown(f"{path}: {value!r} is none of its values", value.upper(), names))
        return names[value.upper()].number
    return value


def _make(message: Message, value: Any, path: str) -> None:
    """Makes `message` what `value` stands for: a message, a mapping of its fields, or what its type's shorthand is."""
    name = message.DESCRIPTOR.full_name
    # Objectives and the like hold their message.
    value = getattr(value, "message", value)
    if isinstance(value, Message):
        if value.DESCRIPTOR.full_name != name:
            raise TypeError(f"{path}: give a {name}, not a {value.DESCRIPTOR.full_name}")
        message.ParseFromString(value.SerializeToString())
    elif isinstance(value, Mapping):
        fill(message, value, path)
    elif name in _SHORTHANDS:
        fill(message, _SHORTHANDS[name](value, path), path)
    else:
        raise TypeError(f"{path}: give a mapping of fields or a {name}, not {value!r}")


def _prompt(value: Any, path: str) -> dict[str, Any]:
    return {"text": value} if isinstance(value, str) else {"ids": {"ids": _items(value, path)}}


def _range(value: Any, path: str) -> dict[str, Any]:
    ends = [value, value] if not isinstance(value, Iterable) else _items(value, path)
    if len(ends) != 2:
        raise TypeError(f"{path}: give a number or (low, high), not {value!r}")
    return {"low": ends[0], "high": ends[1]}


def _timestamp(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, datetime.datetime):
        raise TypeError(f"{path}: give a datetime, not {value!r}")
    since = value.astimezone(datetime.timezone.utc) - datetime.datetime.fromtimestamp(0, datetime.timezone.utc)
    return {"seconds": since.days * 86400 + since.seconds, "nanos": since.microseconds * 1000}


def _vector(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": value}
    try:
        return {"values": np.asarray(value, "<f4").tobytes()}
    except (TypeError, ValueError):
        raise TypeError(f"{path}: give numbers or the name of an uploaded vector, not {value!r}") from None


_SHORTHANDS = {
    "epo.v1.Prompt": _prompt,
    "epo.v1.TokenIds": lambda value, path: {"ids": _items(value, path)},
    "epo.v1.PenaltyRange": _range,
    "epo.v1.Vector": _vector,
    "epo.v1.TokenReference": lambda value, path: {"text" if isinstance(value, str) else "id": value},
    "epo.v1.Position": lambda value, path: {"index": value},
    "google.protobuf.Timestamp": _timestamp,
}
