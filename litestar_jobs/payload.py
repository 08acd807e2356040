"""Payloads and results: JSON that comes back as it went in, or an error at the call.

msgspec does not check a Struct when it is built and writes NaN as null, and PostgreSQL's jsonb knows no NUL character.
So a payload is encoded and decoded again where it is given (about a microsecond), and refused if it would not return.
A part that is typed ``Any`` comes back as what JSON has: text for a datetime, a list for a tuple.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Generic, TypeVar, cast

import msgspec

from litestar_jobs.errors import DefinitionError, JobsError, PayloadError, PayloadRefused, ResultError

__all__ = ("MAX_RESULT", "NO_PAYLOAD", "READ_FACTOR", "PayloadCodec", "ResultCodec")

PayloadT = TypeVar("PayloadT")

NO_PAYLOAD = b"null"
READ_FACTOR = 4
"""A worker reads payloads so many times as large as may be enqueued: jsonb writes blanks, and numbers in full."""
MAX_RESULT = 1_000_000
"""Bytes of JSON."""
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

encode = msgspec.json.Encoder().encode


class PayloadCodec(Generic[PayloadT]):
    """Encodes and decodes the payloads of one job."""

    __slots__ = ("_decode", "_job_type", "type")

    def __init__(self, where: str, job_type: str, type_: Any) -> None:
        self._job_type = job_type
        self.type = type_
        try:
            self._decode: Callable[[bytes | str], PayloadT] = msgspec.json.Decoder(type_).decode
            stranger = _stranger(type_)
        except (TypeError, NameError, ValueError) as error:
            raise self._unfit(where, str(error)) from error
        if stranger is not None:
            raise self._unfit(where, f"msgspec knows no {stranger.__qualname__}")

    @property
    def type_name(self) -> str:
        """The type, for messages."""
        return self.type.__qualname__ if isinstance(self.type, type) else str(self.type)

    def encode(self, payload: Any) -> bytes:
        """The payload as JSON; :exc:`PayloadRefused` if it would not come back."""
        try:
            encoded = encode(payload)
        except UnicodeEncodeError as error:
            raise self._refused(f"text with a lone surrogate cannot be stored ({error})") from error
        except Exception as error:  # whatever keeps it from being JSON is the reason
            raise self._refused(str(error)) from error
        if b"null" in encoded and (where := _not_finite(payload)):
            raise self._refused(f"NaN and infinity are not JSON - at `{where}`")
        if b"\\u0000" in encoded and NUL.search(encoded):
            raise self._refused("PostgreSQL cannot store the NUL character (\\u0000) in text")
        try:
            returned = encode(self._decode(encoded))
        except Exception as error:  # a payload may check itself in any way
            raise self._refused(str(error)) from error
        if returned != encoded and (lost := _lost(encoded, returned)):
            raise self._refused(f"a {self.type_name} has no place for {', '.join(lost)}")
        return encoded

    def decode(self, stored: str | None) -> PayloadT:
        """The payload as its type has it now; :exc:`PayloadError` if it does not fit, or is None, as one that is too
        large is claimed."""
        if stored is None:
            raise PayloadError(
                f"the stored payload of job {self._job_type!r} is larger than a worker reads, which is "
                f"{READ_FACTOR} times JobsConfig.max_payload: raise that and retry the job, or delete it"
            )
        try:
            return self._decode(stored)
        except Exception as error:  # a payload may check itself in any way
            raise self._strange(str(error)) from error

    def _strange(self, reason: str) -> JobsError:
        return PayloadError(
            f"the stored payload of job {self._job_type!r} does not decode as {self.type_name}: {reason}"
        )

    def _unfit(self, where: str, reason: str) -> DefinitionError:
        return DefinitionError(
            f"job {where}: its first parameter is its payload, but {self.type_name} cannot be one: {reason}. "
            "Use a msgspec.Struct, dataclass, TypedDict, attrs class or built-in type, defined in its module. "
            "If the parameter is a dependency, let the job take keywords only: def job(*, dependency: ...)."
        )

    def _refused(self, reason: str) -> JobsError:
        return PayloadRefused(
            f"payload of job {self._job_type!r} refused, nothing was enqueued: {reason}", job_type=self._job_type
        )


class ResultCodec(PayloadCodec[PayloadT]):
    """The same for what the handler of a job returns. Whatever is wrong is a :exc:`ResultError`."""

    __slots__ = ()

    def encode(self, payload: Any) -> bytes:
        encoded = super().encode(payload)
        if len(encoded) > MAX_RESULT:
            raise self._refused(
                f"it has {len(encoded)} bytes and at most {MAX_RESULT} are allowed; store it elsewhere and return where"
            )
        return encoded

    def _strange(self, reason: str) -> JobsError:
        return ResultError(f"the stored result of job {self._job_type!r} does not decode as {self.type_name}: {reason}")

    def _unfit(self, where: str, reason: str) -> DefinitionError:
        return DefinitionError(
            f"job {where}: {self.type_name}, which it returns, cannot be stored as its result: {reason}. Return a "
            "msgspec.Struct, dataclass, TypedDict, attrs class or built-in type, or keep no result: @job(result=False)."
        )

    def _refused(self, reason: str) -> JobsError:
        return ResultError(
            f"what job {self._job_type!r} returned cannot be stored as {self.type_name}, so it is not run again: {reason}"
        )


def _stranger(type_: Any) -> type | None:
    """A type inside this one that msgspec would leave to hooks, which there are none of."""
    seen: set[int] = set()
    rest: list[object] = [msgspec.inspect.type_info(type_)]
    while rest:
        node = rest.pop()
        if isinstance(node, msgspec.inspect.CustomType):
            return node.cls
        if isinstance(node, tuple):
            rest.extend(cast("tuple[object, ...]", node))
        elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            rest.extend(getattr(node, name) for name in node.__struct_fields__)
    return None


def _not_finite(value: object, where: str = "$") -> str | None:
    """Where a float hides that JSON cannot carry, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else where
    parts = ((f"{where}{step}", part) for step, part in _parts(value))
    return next((found for place, part in parts if (found := _not_finite(part, place))), None)


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What a value that msgspec can encode consists of."""
    if value is None or isinstance(value, str | bytes | int):
        return
    if isinstance(value, Mapping):
        yield from ((f".{key}", item) for key, item in cast("Mapping[object, object]", value).items())
    elif isinstance(value, list | tuple | AbstractSet):
        yield from ((f"[{index}]", item) for index, item in enumerate(cast("Iterable[object]", value)))
    else:
        slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
        names = dict.fromkeys((*getattr(value, "__dict__", ()), *getattr(value, "__struct_fields__", ()), *slots))
        yield from ((f".{name}", getattr(value, name)) for name in names if hasattr(value, name))


def _lost(encoded: bytes, returned: bytes) -> list[str]:
    """Names of fields that were given and did not come back."""
    return sorted(set(Counter(_keys(msgspec.json.decode(encoded))) - Counter(_keys(msgspec.json.decode(returned)))))


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        yield from fields
        for item in fields.values():
            yield from _keys(item)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _keys(item)
