"""Whether what one job returns can be the payload of another, as far as their types tell.

The rest is found out when a payload is decoded. Nothing is refused here that could decode.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

__all__ = ("misfit",)

UNKNOWN = (inspect.AnyType, inspect.RawType, inspect.CustomType, inspect.ExtType, inspect.EnumType, inspect.LiteralType)
"""What may be several things in JSON."""
FIELDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
KINDS: dict[str, tuple[type[inspect.Type], ...]] = {
    "null": (inspect.NoneType,),
    "true or false": (inspect.BoolType,),
    "a number": (inspect.IntType, inspect.FloatType),
    "an object": (inspect.DictType, *FIELDS),
    "a list": (
        inspect.ListType,
        inspect.SetType,
        inspect.FrozenSetType,
        inspect.VarTupleType,
        inspect.TupleType,
        inspect.NamedTupleType,
    ),
}
"""What each type is in JSON. All others are text."""


def misfit(returned: Any, wanted: Any) -> str | None:
    """Why what has the one type cannot be decoded as the other; None if it may be."""
    if returned == wanted:
        return None
    return _misfit(msgspec.inspect.type_info(returned), msgspec.inspect.type_info(wanted), "it", frozenset())


def _misfit(returned: inspect.Type, wanted: inspect.Type, what: str, seen: frozenset[tuple[int, int]]) -> str | None:
    pair = (id(returned), id(wanted))
    if pair in seen:
        return None
    for part in _parts(returned):
        reasons = [_misfit_of_one(part, target, what, seen | {pair}) for target in _parts(wanted)]
        if all(reasons):
            return reasons[0] if len(reasons) == 1 else f"{what} may be {_kind(part)}"
    return None


def _misfit_of_one(
    returned: inspect.Type, wanted: inspect.Type, what: str, seen: frozenset[tuple[int, int]]
) -> str | None:
    if isinstance(returned, UNKNOWN) or isinstance(wanted, UNKNOWN):
        return None
    is_, wants = _kind(returned), _kind(wanted)
    if is_ != wants and not (is_ == "a number" and isinstance(wanted, inspect.DecimalType)):
        return f"{what} is {is_}, not {wants}"
    if isinstance(returned, FIELDS) and isinstance(wanted, FIELDS):
        return _misfit_of_fields(returned, wanted, what, seen)
    if isinstance(returned, inspect.ListType) and isinstance(wanted, inspect.ListType):
        return _misfit(returned.item_type, wanted.item_type, f"an item of {what}", seen)
    return None


def _misfit_of_fields(returned: Any, wanted: Any, what: str, seen: frozenset[tuple[int, int]]) -> str | None:
    if getattr(returned, "array_like", False) or getattr(wanted, "array_like", False):
        return None
    given = {field.encode_name: field for field in returned.fields}
    for field in wanted.fields:
        if field.encode_name not in given:
            if field.required:
                return f"{what} has no {field.encode_name!r}"
        elif reason := _misfit(given[field.encode_name].type, field.type, f"{field.encode_name!r} of {what}", seen):
            return reason
    return None


def _parts(type_: inspect.Type) -> Iterator[inspect.Type]:
    """What a union is of, without what is never there."""
    for part in type_.types if isinstance(type_, inspect.UnionType) else (type_,):
        yield from _parts(part.type) if isinstance(part, inspect.Metadata) else (part,)


def _kind(type_: inspect.Type) -> str:
    if getattr(type_, "array_like", False):
        return "a list"
    return next((kind for kind, types in KINDS.items() if isinstance(type_, types)), "text")
