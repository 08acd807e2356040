"""What the parameters of a function mean: the first is the payload, those after it are dependencies.

Annotations of dependencies are not looked at: they are filled by name, and may be there for type checkers alone.
"""

import inspect
from collections.abc import Callable
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Never, NoReturn, Union, get_args, get_origin, get_type_hints

from litestar_jobs.context import JobContext
from litestar_jobs.errors import DefinitionError
from litestar_jobs.signals import Signal

__all__ = ("names_around", "payload_type", "result_type", "split", "where")

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def where(fn: Callable[..., Any]) -> str:
    """Module, name, file and line of a function, for messages."""
    code = inspect.unwrap(fn).__code__
    return f"{fn.__module__}.{fn.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


def names_around(own: dict[str, Any]) -> dict[str, Any]:
    """The local names where a module was called, which has these globals: the type of a payload may be one of them."""
    frame = inspect.currentframe()
    while frame is not None and any(frame.f_globals is each for each in (own, globals())):
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


def split(fn: Callable[..., Any]) -> tuple[inspect.Parameter | None, dict[str, inspect.Parameter]]:
    """The payload parameter, and the dependencies after it. :exc:`DefinitionError` if they cannot be told apart."""
    parameters = list(inspect.signature(fn).parameters.values())
    for parameter in parameters:
        if parameter.kind in VARIADIC:
            raise DefinitionError(
                f"job {where(fn)} has the parameter {parameter}, but dependencies are filled by name: name each one"
            )
    first = parameters[0] if parameters and parameters[0].kind in POSITIONAL else None
    rest = parameters if first is None else parameters[1:]
    for parameter in rest:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise DefinitionError(f"job {where(fn)}: dependency {parameter.name!r} must not be positional-only")
    if first is not None and first.default is not inspect.Parameter.empty:
        raise DefinitionError(
            f"job {where(fn)}: its payload {first.name!r} has a default, but a call of the job always gives it. "
            f"Remove the default; a job without a payload takes keywords only: {_without_payload(fn, first)}."
        )
    return first, {parameter.name: parameter for parameter in rest}


def payload_type(fn: Callable[..., Any], parameter: inspect.Parameter, namespace: dict[str, Any]) -> Any:
    """The type of the payload. ``namespace`` holds the names that are local where the function is defined."""
    if parameter.annotation is inspect.Parameter.empty:
        raise DefinitionError(
            f"job {where(fn)}: its first parameter {parameter.name!r} is the payload and needs a type annotation "
            "(methods cannot be jobs)"
        )
    annotation = _resolved(fn, parameter.annotation, namespace, "the type of its payload", "")
    if annotation is JobContext or _is_dependency(annotation):
        raise DefinitionError(
            f"job {where(fn)}: its first parameter {parameter.name!r} would be the payload, but is a dependency. "
            f"A job without a payload takes keywords only: {_without_payload(fn, parameter)}."
        )
    return annotation


def result_type(fn: Callable[..., Any], namespace: dict[str, Any]) -> Any:
    """The type of what the function returns; None if its annotation does not say that it returns something."""
    annotation = inspect.signature(fn).return_annotation
    if annotation in (inspect.Signature.empty, None, "None"):
        return None
    resolved = _resolved(
        fn, annotation, namespace, "the type of its result", " A job that keeps no result: @job(result=False)."
    )
    kept = tuple(part for part in _parts(resolved) if not _is_signal(part))
    if all(part in (type(None), Never, NoReturn) for part in kept):
        return None
    return resolved if len(kept) == len(_parts(resolved)) else Union[kept]  # noqa: UP007 - of what is known only now


def _is_signal(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Signal)


def _parts(annotation: Any) -> tuple[Any, ...]:
    """What a union is of; the annotation alone if it is none."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _resolved(fn: Callable[..., Any], annotation: Any, namespace: dict[str, Any], what: str, more: str) -> Any:
    """The annotation, alone, if it is text."""
    alone = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(alone, inspect.unwrap(fn).__globals__, namespace, include_extras=True)["it"]
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise DefinitionError(
            f"job {where(fn)}: {what} cannot be resolved ({error}). "
            f"It is needed at run time: define it before the job, and import it outside TYPE_CHECKING.{more}"
        ) from error


def _is_dependency(annotation: Any) -> bool:
    """Whether it carries Litestar's mark of a dependency, ``NamedDependency[...]``."""
    return get_origin(annotation) is Annotated and any(
        type(mark).__module__ == "litestar.di" for mark in get_args(annotation)[1:]
    )


def _without_payload(fn: Callable[..., Any], parameter: inspect.Parameter) -> str:
    return f"def {fn.__name__}(*, {parameter.name}: ...)"
