"""How much JSON a body may have, counted before it is parsed.

pydantic keeps the interpreter's lock from the first byte of a body to the last check of it. A megabyte of wrong values
takes it seconds, and nothing else runs meanwhile. A megabyte of base64 takes it half a millisecond. So the brackets,
colons and commas of a body are counted while it arrives, and one that has more of them than any valid request to its
route is refused there and then. What a valid request may have follows from its schema, where `AtMost` says how long
each list may be.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, SchemaValidator

from vision_model_repo.settings import Settings

SPARE = 4_000
"""More of everything than a schema needs, for fields that it does not know and for values of any type."""
SLACK = 100
"""How many items too many a list may have, at least, to be refused in words of its own, once it is checked."""
DICT_MEMBERS = 4
"""Members of a dictionary of anything, beyond those that are spare."""

_AT_MOST = "at_most"

Limit = int | Callable[[Settings], int]


@dataclass(frozen=True, slots=True)
class AtMost:
    """Says in a schema how many items a list may have: `Annotated[list[str], AtMost(4)]`.

    Such a list is checked up to its first wrong item, and by `validator_of` no further than to twice that length. What
    is a little too long is refused later, by those who know what is in it.

    Args:
        limit: most items, a number or what settings say.
        together: most items of all the lists of a body that have this same limit.
    """

    limit: Limit
    together: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if schema["type"] != "list":
            raise TypeError(f"AtMost is for lists, and not for {source}.")
        return {**schema, "fail_fast": True, "metadata": {**schema.get("metadata", {}), _AT_MOST: self}}

    def count(self, settings: Settings) -> int:
        return self.limit if isinstance(self.limit, int) else self.limit(settings)


@dataclass(slots=True)
class JsonSize:
    """How many lists, objects, members of objects and commas there are in a body."""

    lists: int = 0
    objects: int = 0
    members: int = 0
    commas: int = 0


def most_of(model: type[BaseModel], settings: Settings) -> JsonSize:
    """The most that a valid request of this schema may have."""
    return _most_of(model, _Same(settings))


def validator_of(model: type[BaseModel], settings: Settings) -> SchemaValidator:
    """Checks bodies of this schema; lists that are far longer than settings allow are an error of type too_long, with
    a `max_length` above `SLACK`."""
    return _validator_of(model, _Same(settings))


@lru_cache(maxsize=256)
def lists_of(model: type[BaseModel]) -> tuple[str, ...]:
    """Names of the fields that may be lists."""
    return tuple(name for name, field in model.model_fields.items() if _may_be_list(field.annotation))


def _may_be_list(kind: Any) -> bool:
    if get_origin(kind) in (Annotated, Union, types.UnionType):
        return any(map(_may_be_list, get_args(kind)))
    return get_origin(kind) is list


class _Same:
    """Settings as a key: they never change, and cannot be hashed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.settings is self.settings

    def __hash__(self) -> int:
        return id(self.settings)


@lru_cache(maxsize=256)
def _most_of(model: type[BaseModel], same: _Same) -> JsonSize:
    walk = _Walk(same.settings)
    walk.add(model, 1)
    return walk.size


@lru_cache(maxsize=256)
def _validator_of(model: type[BaseModel], same: _Same) -> SchemaValidator:
    # Not those that pydantic has built for the models: they know no lengths.
    return SchemaValidator(_with_lengths(model.__pydantic_core_schema__, same.settings), _use_prebuilt=False)


def _with_lengths(schema: Any, settings: Settings) -> Any:
    """A core schema, or a part of one, in which the lists that have a limit know it."""
    if isinstance(schema, list | tuple):
        return type(schema)(_with_lengths(each, settings) for each in schema)
    if not isinstance(schema, dict):
        return schema
    most = (schema.get("metadata") or {}).get(_AT_MOST) if schema.get("type") == "list" else None
    copied = {key: _with_lengths(value, settings) for key, value in schema.items()}
    if most is None:
        return copied
    count = most.count(settings)
    length = count + max(count, SLACK)
    return {**copied, "max_length": min(length, copied.get("max_length", length))}


class _Walk:
    """Goes through the types of a schema."""

    def __init__(self, settings: Settings) -> None:
        self.size = JsonSize(SPARE, SPARE, SPARE, SPARE)
        self._settings = settings
        self._shared: set[AtMost] = set()

    def add(self, kind: Any, times: int, metadata: tuple[Any, ...] = ()) -> None:
        """Adds what so many values of a type may have. Of a union each member counts, which is a little too much."""
        origin, arguments, size = get_origin(kind), get_args(kind), self.size
        if origin is Annotated:
            self.add(arguments[0], times, kind.__metadata__)
        elif origin in (Union, types.UnionType):
            for each in arguments:
                self.add(each, times, metadata)
        elif origin is list:
            items = self._items(next((each for each in metadata if isinstance(each, AtMost)), None), times)
            size.lists += times
            size.commas += items
            self.add(arguments[0], items)
        elif origin is tuple:
            size.lists += times
            size.commas += times * (len(arguments) - 1)
            for each in arguments:
                self.add(each, times)
        elif kind is dict or origin is dict:
            # Of values of any type, such as `{"url": ..., "detail": ...}`.
            size.objects += times
            size.members += DICT_MEMBERS * times
            size.commas += DICT_MEMBERS * times
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = kind.model_fields.values()
            size.objects += times
            size.members += times * len(fields)
            size.commas += times * len(fields)
            for field in fields:
                self.add(field.annotation, times, tuple(field.metadata))

    def _items(self, most: AtMost | None, times: int) -> int:
        """Items of so many lists; those of one that does not say its length are among what is spare."""
        if most is None or most in self._shared:
            return 0
        if not most.together:
            return times * most.count(self._settings)
        self._shared.add(most)
        return most.count(self._settings)
