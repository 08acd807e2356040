"""Resolve names as docstrings and annotations write them: ``JobRow`` for ``litestar_jobs.JobRow``, wherever the class
was defined. A name that several documented objects end with stays unresolved."""

from typing import Any

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element
) -> Element | None:
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or (
        "." in target and not target.startswith("litestar_jobs.")
    ):
        return None
    python: Any = env.get_domain("py")
    ending = "." + target.rpartition(".")[2]
    found = [
        name
        for name, entry in python.objects.items()
        if name.endswith(ending) and not entry.aliased
    ]
    if len(found) != 1:
        return None
    node["reftarget"] = found[0]
    return python.resolve_xref(
        env, node["refdoc"], app.builder, "obj", found[0], node, content
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
