"""Unique jobs: of those with one key, there is one at a time.

A key is made where a job is called, from the payload as it will be stored; whether another job holds it is the
database's to say.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID

import msgspec
from msgspec.inspect import DataclassType, Field, Metadata, NoneType, StructType, TypedDictType, UnionType, type_info

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError

__all__ = ("KeyMaker", "Unique", "UniqueKey")

Until: TypeAlias = Literal["started", "finished"]
OnConflict: TypeAlias = Literal["skip", "replace", "reschedule", "error"]

canonical = msgspec.json.Encoder(order="sorted").encode


class Unique(msgspec.Struct, frozen=True, kw_only=True):
    """That of jobs with one key there is one at a time: ``@job(unique=Unique(by=("account",)))``."""

    by: Literal["job", "payload"] | tuple[str, ...] | list[str] | Callable[[Any], Any] = "payload"
    """What the key is made of: the job alone, its payload, some fields of that, or what a function makes of it."""
    until: Until = "finished"
    """For how long a job holds its key: until it has started, or until it has finished (all attempts)."""
    within: Duration | None = None
    """For so many seconds after its enqueue it holds the key in any case."""
    on_conflict: OnConflict = "skip"
    """What becomes of another one: nothing (``skip``); the pending job gets its payload, priority, queue, time and
    ``max_retries`` (``replace``) or only its time (``reschedule``); or :exc:`AlreadyEnqueued` (``error``)."""

    def __post_init__(self) -> None:
        _one_of(self.until, "until", ("started", "finished"))
        _one_of(self.on_conflict, "on_conflict", ("skip", "replace", "reschedule", "error"))
        if self.within is not None:
            seconds(self.within, "within", least=0.001)
        if not callable(self.by) and self.by not in ("job", "payload"):
            _check_names(self.by)


class UniqueKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of the database. The key of another job's payload is another."""

    key: UUID
    until: Until
    within: float | None
    on_conflict: OnConflict


class KeyMaker:
    """Makes the keys of one job."""

    def __init__(self, unique: Unique, job_type: str, payload_type: Any) -> None:
        """``payload_type`` is None for a job without a payload."""
        self._unique = unique
        self._job_type = job_type
        self._within = None if unique.within is None else seconds(unique.within, "within")
        self._fields: Sequence[str] = ()
        if unique.by in ("job", "payload"):
            return
        if payload_type is None:
            raise DefinitionError('it takes no payload, so by can only be "job"')
        if not callable(unique.by):
            self._fields = _encoded_names(unique.by, payload_type)

    def key(self, payload: Any, encoded: bytes) -> UniqueKey:
        """The key for a payload, which is given as it was and as it will be stored."""
        named = self._job_type.encode() + b"\0" + self._canonical(payload, encoded)
        digest = hashlib.blake2b(named, digest_size=16).digest()
        asked = self._unique
        return UniqueKey(key=UUID(bytes=digest), until=asked.until, within=self._within, on_conflict=asked.on_conflict)

    def _canonical(self, payload: Any, encoded: bytes) -> bytes:
        by = self._unique.by
        if by == "job":
            return b""
        if callable(by):
            return self._made(by(payload))
        stored = msgspec.json.decode(encoded)
        if self._fields and stored is not None:
            stored = {name: stored[name] for name in self._fields if name in stored}
        return canonical(stored)

    def _made(self, value: Any) -> bytes:
        try:
            return canonical(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise DefinitionError(
                f"the function that makes the key of unique job {self._job_type!r} must give something that JSON has, "
                f"such as text, a number or a list of them, not {value!r}: {error}"
            ) from error


def _one_of(value: object, what: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DefinitionError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


def _check_names(by: object) -> None:
    names = cast("Sequence[object]", by if isinstance(by, tuple | list) else ())
    if not names or not all(isinstance(name, str) for name in names):
        raise DefinitionError(
            f'by must be "job", "payload", names of fields such as ("account", "day"), or a function, not {by!r}'
        )


def _encoded_names(names: Sequence[str], payload_type: Any) -> list[str]:
    """These fields of the payload, by their names in its JSON."""
    kinds = _objects(type_info(payload_type))
    return sorted({_encoded_name(name, kind) for name in names for kind in kinds})


def _objects(info: msgspec.inspect.Type) -> list[Sequence[Field]]:
    """The fields of each kind of object that a payload can be."""
    match info:
        case Metadata():
            return _objects(info.type)
        case UnionType():
            return [kind for each in info.types if not isinstance(each, NoneType) for kind in _objects(each)]
        case StructType(array_like=False) | DataclassType() | TypedDictType():
            return [info.fields]
        case _:
            raise DefinitionError("its payload has no named fields: let by be a function of it, or 'payload'")


def _encoded_name(name: str, fields: Sequence[Field]) -> str:
    for field in fields:
        if field.name == name:
            return field.encode_name
    raise DefinitionError(
        f"its payload has no field {name!r}, but {', '.join(field.name for field in fields) or 'none'}"
    )
