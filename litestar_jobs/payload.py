"""Payloads: JSON that comes back as it went in, or an error at the call.

msgspec does not check a Struct when it is built and writes NaN as null, and PostgreSQL's jsonb knows no NUL character.
So a payload is encoded and decoded again where it is given (about a microsecond), and refused if it would not return.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from litestar_jobs.errors import DefinitionError, PayloadError, PayloadRefused

__all__ = ("NO_PAYLOAD", "PayloadCodec")

PayloadT = TypeVar("PayloadT")

NO_PAYLOAD = b"null"
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

encode = msgspec.json.Encoder().encode


class PayloadCodec(Generic[PayloadT]):
    """Encodes and decodes the payloads of one job."""

    __slots__ = ("_decode", "_job_type", "type")

    def __init__(self, job_type: str, type_: Any) -> None:
        self._job_type = job_type
        self.type = type_
        try:
            self._decode = msgspec.json.Decoder(type_).decode
        except TypeError as error:
            raise DefinitionError(
                f"job {job_type!r}: msgspec cannot decode a payload of type {type_!r}: {error}. "
                "Use a msgspec.Struct, dataclass, TypedDict, attrs class or built-in type."
            ) from error

    def encode(self, payload: Any) -> bytes:
        """The payload as JSON; :exc:`PayloadRefused` if it would not come back."""
        try:
            encoded = encode(payload)
        except UnicodeEncodeError as error:
            raise self._refused(f"text with a lone surrogate cannot be stored ({error})") from error
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise self._refused(str(error)) from error
        if b"null" in encoded and (where := _not_finite(payload)):
            raise self._refused(f"NaN and infinity are not JSON - at `{where}`")
        if b"\\u0000" in encoded and NUL.search(encoded):
            raise self._refused("PostgreSQL cannot store the NUL character (\\u0000) in text")
        try:
            self._decode(encoded)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise self._refused(str(error)) from error
        return encoded

    def decode(self, stored: str) -> PayloadT:
        """The payload as its type has it now; :exc:`PayloadError` if it does not fit."""
        try:
            payload: PayloadT = self._decode(stored)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PayloadError(
                f"the stored payload of job {self._job_type!r} is not a {_name(self.type)} any more: {error}"
            ) from error
        return payload

    def _refused(self, reason: str) -> PayloadRefused:
        return PayloadRefused(
            f"payload of job {self._job_type!r} refused, nothing was enqueued: {reason}", job_type=self._job_type
        )


def _name(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_))


def _not_finite(value: Any, where: str = "$") -> str | None:
    """Where a float hides that JSON cannot carry, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else where
    if isinstance(value, str | bytes | int) or value is None:
        return None
    if isinstance(value, Mapping):
        return _first(_not_finite(item, f"{where}.{key}") for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return _first(_not_finite(item, f"{where}[{index}]") for index, item in enumerate(value))
    names = [*getattr(value, "__dict__", ()), *getattr(value, "__struct_fields__", getattr(value, "__slots__", ()))]
    return _first(_not_finite(getattr(value, name, None), f"{where}.{name}") for name in names)


def _first(found: Any) -> str | None:
    return next((where for where in found if where), None)
