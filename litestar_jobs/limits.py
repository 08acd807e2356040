"""Limits and rates: what a user writes becomes, at the definition of the job, the keys and numbers of each of its jobs.

Whatever has the same key shares a limit, or a rate, whichever job and queue it is of. A key is the name of the job, or one
that several jobs agree on, and with ``by`` a value of the payload behind it.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import ConfigurationError, DefinitionError
from litestar_jobs.payload import PayloadCodec
from litestar_jobs.request import MAX_KEY, Limited, check_name, whole_number

__all__ = ("Gating", "Limit", "Rate", "check_shared", "gating")

MAX_NAME = 100
MOST = 10_000
SHORTEST, LONGEST = 0.001, 366 * 24 * 3600.0

By: TypeAlias = str | Callable[[Any], object]
Keying: TypeAlias = Callable[[Any], str | None]
"""Makes the key of a payload; None where there is no limit, or no rate."""


class _Keyed(msgspec.Struct, frozen=True, kw_only=True):
    key: str | None = None
    """Shared by all jobs that name it, of whatever queue. None: by the jobs of this name."""
    by: By | None = None
    """For each value of this field of the payload, or of a function of the payload, one of its own."""

    def __post_init__(self) -> None:
        if self.key is not None:
            if callable(self.key):
                raise DefinitionError(
                    "key is text, shared by all jobs that name it; a function of the payload is by=..."
                )
            check_name(self.key, f"key of {type(self).__name__}", MAX_NAME)
        if self.by is not None and not callable(self.by):
            check_name(self.by, f"by of {type(self).__name__}, unless it is a function,", MAX_NAME)


class Limit(_Keyed, frozen=True):
    """At most so many jobs at once, over all workers: ``Limit(2)``, ``Limit(1, by="customer")``, ``Limit(5, key="sap")``."""

    concurrency: int

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number(self.concurrency, "concurrency of Limit", 1, MOST)


class Rate(_Keyed, frozen=True):
    """At most so many starts in any ``per`` (seconds or ``timedelta``), over all workers:
    ``Rate(60, per=timedelta(minutes=1))``. Each attempt is a start."""

    count: int
    per: Duration

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number(self.count, "count of Rate", 1, MOST)
        seconds(self.per, "per of Rate", least=SHORTEST, most=LONGEST)


class Gating:
    """The limit and the rate of the jobs of one name, of which at least one is there."""

    def __init__(
        self, limit: Limit | None, rate: Rate | None, *, name: str, where: str, codec: PayloadCodec[Any] | None
    ) -> None:
        """``codec`` is that of the payload, if there is one. Raises :exc:`DefinitionError` for what makes no sense."""
        self._codec = codec
        self.numbers = (
            None if limit is None else limit.concurrency,
            None if rate is None else rate.count,
            None if rate is None else seconds(rate.per, "per"),
        )
        """Concurrency, starts, and in how many seconds; None for what there is not."""
        self.shared: dict[tuple[str, str], tuple[object, ...]] = {}
        """The numbers of what other jobs may share, by kind and name."""
        if limit is not None:
            self.shared["limit", limit.key or name] = self.numbers[:1]
        if rate is not None:
            self.shared["rate", rate.key or name] = self.numbers[1:]
        self._is_fixed = all(each is None or each.by is None for each in (limit, rate))
        try:
            self._limit_key, self._rate_key = _keying(limit, name, codec), _keying(rate, name, codec)
        except DefinitionError as error:
            raise DefinitionError(f"job {where}: {error}") from error

    @property
    def without_payload(self) -> Limited | None:
        """What any of the jobs brings with it; None if that depends on the payload."""
        if not self._is_fixed:
            return None
        return Limited(self._limit_key(None), self._rate_key(None), *self.numbers)

    def of(self, payload: bytes) -> Limited:
        """What a job with this payload brings with it. :exc:`DefinitionError` if that can be no key."""
        value = None if self._codec is None else self._codec.decode(payload.decode())
        return Limited(self._limit_key(value), self._rate_key(value), *self.numbers)


def gating(limit: object, rate: object, *, name: str, where: str, codec: PayloadCodec[Any] | None) -> Gating | None:
    """What the options of ``@job`` say; None if that is nothing."""
    if not isinstance(limit, Limit | None):
        raise DefinitionError(f"job {where}: limit must be a Limit, such as Limit(2), not {limit!r}")
    if not isinstance(rate, Rate | None):
        raise DefinitionError(f"job {where}: rate must be a Rate, such as Rate(60, per=60), not {rate!r}")
    if limit is None and rate is None:
        return None
    return Gating(limit, rate, name=name, where=where, codec=codec)


def _keying(keyed: Limit | Rate | None, job: str, codec: PayloadCodec[Any] | None) -> Keying:
    if keyed is None:
        return lambda _: None
    name = keyed.key or job
    if keyed.by is None:
        return lambda _: name
    kind = type(keyed).__name__
    if codec is None:
        raise DefinitionError(f"{kind} has by={keyed.by!r}, but the job takes no payload")
    value = keyed.by if callable(keyed.by) else _field(keyed.by, kind, codec)

    def key(payload: Any) -> str:
        try:
            plain = msgspec.to_builtins(value(payload))
            text = plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()
        except Exception as error:  # a user's function may raise anything
            raise DefinitionError(
                f"the key of {kind} of job {job!r} cannot be made of its payload: {error!r}"
            ) from error
        return check_name(f"{name}:{text}", f"the key of {kind} of job {job!r}", MAX_KEY)

    return key


def _field(name: str, kind: str, codec: PayloadCodec[Any]) -> Callable[[Any], object]:
    """How to read a field of the payload."""
    info = msgspec.inspect.type_info(codec.type)
    names = [field.name for field in getattr(info, "fields", ())]
    if name not in names:
        has = f"it has {', '.join(names)}" if names else "it has no fields"
        raise DefinitionError(f"{kind} has by={name!r}, but the payload, {codec.type_name}, has no such field: {has}")
    if isinstance(info, msgspec.inspect.TypedDictType):
        return lambda payload: payload.get(name)
    return lambda payload: getattr(payload, name)


def check_shared(gatings: Iterable[Gating]) -> None:
    """:exc:`ConfigurationError` if jobs share a limit or a rate and do not agree on its numbers."""
    numbers: dict[tuple[str, str], tuple[object, ...]] = {}
    for gating in gatings:
        for (kind, name), own in gating.shared.items():
            other = numbers.setdefault((kind, name), own)
            if other != own:
                raise ConfigurationError(
                    f"jobs share the {kind} {name!r}, but have different numbers for it: "
                    f"{_listed(other)} and {_listed(own)}. Give them the same, or keys of their own."
                )


def _listed(numbers: tuple[object, ...]) -> str:
    return " per ".join(map(str, numbers))
