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

"""Scenarios: a cluster and an audit's parameters as plain text.

A scenario is what a bug report, a golden test or a dry run without a cloud
needs: ``load(dump(scenario)) == scenario`` (law L9), and a plan made of the
loaded one is the same plan. Files are YAML or JSON, carry their own tiers
and a format version, and are checked against :data:`SCHEMA`.

What a dump writes out can be left out by hand:

* a host's ``providers``: ``inventories`` and ``traits`` of a single root
  provider will do, an inventory may be just its total;
* ``allocated`` of the providers and ``held``: computed from the instances,
  provided that one provider alone of a host has each class;
* a flavor's ``groups``: made from vCPUs, memory, disk and extra specs as
  Nova's scheduler does;
* an instance's ``tier`` and ``units``: told from its flavor;
* uuids: the name stands for them.

Text becomes plain data in :mod:`~watcher_cputier.scenario.text`, plain data
is checked in :mod:`~watcher_cputier.scenario.schema` and becomes values in
:mod:`~watcher_cputier.scenario.reading`;
:mod:`~watcher_cputier.scenario.writing` goes the other way.
"""

from watcher_cputier.scenario import pseudonyms
from watcher_cputier.scenario import reading
from watcher_cputier.scenario import schema
from watcher_cputier.scenario import text
from watcher_cputier.scenario import values
from watcher_cputier.scenario import writing

Scenario = values.Scenario
ScenarioError = values.ScenarioError
SCHEMA = schema.SCHEMA
VERSION = schema.VERSION
load = reading.load
dump = writing.dump
pseudonymised = pseudonyms.pseudonymised


def loads(source: str) -> Scenario:
    """Read a scenario from YAML or JSON text.

    :raises ScenarioError: with the path of the first offending element
    """
    return load(text.parse(source))


def dumps(scenario: Scenario) -> str:
    """The scenario as YAML text, the same for equal scenarios."""
    return text.render(dump(scenario))
