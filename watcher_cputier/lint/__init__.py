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


"""Drift: where inventories, flavors, shares and instances contradict (N7).

Tiers work if what hosts report, what flavors request, what weight they set
and what instances hold agree. Nothing keeps them so: each is written by hand
in another place. Every rule here compares two of them and says what is
wrong, on which object, why it matters and which command mends it.

* **error**: the accounting or a promise is broken now;
* **warning**: it breaks when the cloud fills, or somebody is misled;
* **info**: perhaps meant so.

Nothing is changed, and nothing is asked of anybody: the facts are values.
"""

from watcher_cputier import parameters
from watcher_cputier.lint import clouds
from watcher_cputier.lint import flavors
from watcher_cputier.lint import hosts
from watcher_cputier.lint import values

ERROR = values.ERROR
WARNING = values.WARNING
INFO = values.INFO
SEVERITIES = values.SEVERITIES
Facts = values.Facts
Issue = values.Issue
NovaOptions = values.NovaOptions
Offered = values.Offered

#: All rules; one is added by naming it in the module that has its kind.
RULES = (*flavors.RULES, *hosts.RULES, *clouds.RULES)


def audit(facts: Facts, params: parameters.Parameters) -> tuple[Issue, ...]:
    """All that contradicts, by severity, kind, subject."""
    found = {issue for rule in RULES for issue in rule(facts, params)}
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    return tuple(
        sorted(
            found,
            key=lambda i: (order[i.severity], i.kind, i.subject, i.why),
        )
    )
