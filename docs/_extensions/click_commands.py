"""``.. click-commands:: module:group``: a section for each command of a click group, out of its own help."""

import inspect
from importlib import import_module

import click
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class ClickCommands(SphinxDirective):
    required_arguments = 1
    option_spec = {"prog": str}  # noqa: RUF012 - docutils reads it from the class

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].partition(":")
        group: click.Group = getattr(import_module(module), name)
        above = click.Context(group, info_name=self.options["prog"])
        return self._sections(group, above)

    def _sections(
        self, group: click.Group, above: click.Context
    ) -> list[nodes.Node]:
        commands = [group.commands[name] for name in group.list_commands(above)]
        return [
            self._section(command, above)
            for command in commands
            if not command.hidden
        ]

    def _section(
        self, command: click.Command, above: click.Context
    ) -> nodes.section:
        context = click.Context(command, info_name=command.name, parent=above)
        section = nodes.section(ids=[nodes.make_id(context.command_path)])
        section += nodes.title("", "", nodes.literal("", context.command_path))
        usage = " ".join(
            [context.command_path, *command.collect_usage_pieces(context)]
        )
        section += nodes.literal_block(usage, usage, language="text")
        self._parse(
            inspect.cleandoc(command.help or "").replace("\b\n", ""), section
        )
        records = [
            each.get_help_record(context)
            for each in command.get_params(context)
        ]
        options = [record for record in records if record and record[1]]
        if options:
            listed = nodes.definition_list()
            for signature, text in options:
                item = nodes.definition_list_item(
                    "", nodes.term("", "", nodes.literal("", signature))
                )
                item += nodes.definition("", nodes.paragraph("", text))
                listed += item
            section += listed
        if isinstance(command, click.Group):
            section += self._sections(command, context)
        return section

    def _parse(self, text: str, into: nodes.section) -> None:
        self.state.nested_parse(
            StringList(text.splitlines(), source="click"),
            self.content_offset,
            into,
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("click-commands", ClickCommands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
