# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""What the commands have in common: options, missing values, prose."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cliff import columns
from openstack import connection as sdk
from osc_lib.command import command
from oslo_config import cfg

from watcher_cputier import parameters
from watcher_cputier.cli import screen
from watcher_cputier.cli import settings as told
from watcher_cputier.datasources import cloud
from watcher_cputier.osc import client
from watcher_cputier.osc import picture
from watcher_cputier.osc import progress
from watcher_cputier.osc import settings

Rows = tuple[Sequence[str], Iterable[Sequence[Any]]]
Details = tuple[Sequence[str], Sequence[Any]]
_NOTHING = "-"


class Told(columns.FormattableColumn[Any]):
    """A number that may be missing: ``-`` for people, null for programs.

    A missing number is never zero.
    """

    def human_readable(self) -> str:
        """The value, floats in thousandths."""
        if self._value is None:
            return _NOTHING
        if isinstance(self._value, float):
            return f"{self._value:.3f}"
        return str(self._value)

    def machine_readable(self) -> Any:
        """The value itself."""
        return self._value


class Table(columns.FormattableColumn[Sequence[Mapping[str, Any]]]):
    """Records inside a field: a small table for people."""

    def human_readable(self) -> str:
        """Columns, aligned; numbers to the right."""
        if not self._value:
            return _NOTHING
        names = list(self._value[0])
        rows = [names] + [
            [Told(record.get(name)).human_readable() for name in names]
            for record in self._value
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if not place else cell.rjust(width)
                for place, (cell, width) in enumerate(
                    zip(row, widths, strict=True)
                )
            ).rstrip()
            for row in rows
        )

    def machine_readable(self) -> list[dict[str, Any]]:
        """The records."""
        return [dict(record) for record in self._value]


class Lines(columns.FormattableColumn[Sequence[str]]):
    """Texts inside a field, one a line for people."""

    def human_readable(self) -> str:
        """One line each."""
        return "\n".join(self._value) or _NOTHING

    def machine_readable(self) -> list[str]:
        """The texts."""
        return list(self._value)


class Numbers(columns.FormattableColumn[Sequence[int]]):
    """Numbers inside a field."""

    def human_readable(self) -> str:
        """With commas."""
        return ", ".join(map(str, self._value)) or _NOTHING

    def machine_readable(self) -> list[int]:
        """The numbers."""
        return list(self._value)


def add_html(parser: argparse.ArgumentParser) -> None:
    """Add the option for a page."""
    parser.add_argument(
        "--html",
        metavar="<file>",
        help="write this file as well: a page for a browser, complete in "
        "itself, that shows the same in pictures",
    )


class Command(command.Command):
    """A command that knows the tiers.

    :cvar patient: whether it may take long, so that a terminal is told what
        it waits for; such a command writes to standard output at its end
    """

    patient = False
    _progress: progress.Progress | None = None

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options that every command of the group has."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--tier-config",
            metavar="<file>",
            action="append",
            help="configuration file with the [cputier] sections of the "
            "decision engine; may be given several times (Env: "
            f"{settings.VARIABLE}; default: Watcher's own where there is "
            "one, else the built-in tiers)",
        )
        return parser

    @property
    def connection(self) -> sdk.Connection:
        """The connection of the user's session."""
        return self._client.connection

    @property
    def reader(self) -> cloud.Reader:
        """The reader of the user's cloud."""
        return self._client.reader

    @property
    def _client(self) -> client.Client:
        found: client.Client = getattr(
            self.app.client_manager, client.API_NAME
        )
        return found

    def configuration(self, parsed_args: argparse.Namespace) -> cfg.ConfigOpts:
        """The configuration that the command line names.

        :raises ConfigurationError: if it cannot be read
        """
        return settings.configuration(parsed_args.tier_config)

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it, and tell a terminal what it waits for."""
        # Neither for --quiet nor between the lines of --verbose.
        if self.patient and self.app.options.verbose_level == 1:
            self._progress = progress.Progress(
                self.app.stderr, lambda: self.reader.reading
            )
            self._progress.start()
        try:
            status: int = super().run(parsed_args)
        finally:
            self._settle()
        return status

    def _settle(self) -> None:
        """From here on there is something to say."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def tell(self, text: str, level: int = 0) -> None:
        """Prose beside the output, on standard error."""
        self._settle()
        line = "  " * level + screen.printable(text)
        self.app.stderr.write(line + "\n")


class Lister(Command, command.Lister):
    """A command that lists rows."""

    patient = True

    def produce_output(self, *arguments: Any) -> int:
        """The rows."""
        self._settle()
        status: int = super().produce_output(*arguments)
        return status


class ShowOne(Command, command.ShowOne):
    """A command that shows one object."""

    patient = True

    def produce_output(self, *arguments: Any) -> int:
        """The fields."""
        self._settle()
        status: int = super().produce_output(*arguments)
        return status


class Judging(Command):
    """A command that judges the cloud with the parameters of an audit."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options that give the parameters."""
        parser = super().get_parser(prog_name)
        names = ", ".join(p.name for p in parameters.PARAMETERS)
        parser.add_argument(
            "--set",
            metavar="<name>=<value>",
            action="append",
            default=[],
            help="a parameter of the audit; the value is JSON or plain text; "
            f"may be given several times. The parameters are {names}",
        )
        return parser

    def parameters(
        self, parsed_args: argparse.Namespace
    ) -> parameters.Parameters:
        """The parameters that the command line gives.

        :raises ParameterError: if one is wrong
        """
        return settings.validated(told.given(parsed_args.set))

    def picture(
        self, parsed_args: argparse.Namespace, *, whole: bool = True
    ) -> picture.Picture:
        """The cloud, judged.

        :param whole: whether all hosts are read in detail, and not only
            those that an audit would look at closely
        :raises TierError: if it cannot be
        """
        params = self.parameters(parsed_args)
        conf = self.configuration(parsed_args)
        return picture.get_picture(
            self.connection, self.reader, conf, params, whole=whole
        )
