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

"""What audits planned and what became of it: a report as pure values.

Watcher keeps audits, action plans, actions and efficacy indicators; Nova
keeps migrations; the exporter's series tell what happened in between. The
readers at the edge (:mod:`watcher_cputier.datasources.audits`) turn them into
the values of this package, which puts them into words and numbers:

* :mod:`~watcher_cputier.audits.actions`: what an action tells
* :mod:`~watcher_cputier.audits.records`: what the engine's record adds
* :mod:`~watcher_cputier.audits.changes`: before and after, by tier and host
* :mod:`~watcher_cputier.audits.course`: the course over time (R123): minutes
  of breaches (N14, R127), runs that were late or met another one (R130)
* :mod:`~watcher_cputier.audits.sentences`: what an operator reads (R121)
* :mod:`~watcher_cputier.audits.notices`: what a tenant is told (R120)
* :mod:`~watcher_cputier.audits.documents`: all of it as data
"""

from watcher_cputier.audits.actions import migration_of
from watcher_cputier.audits.changes import in_all
from watcher_cputier.audits.course import course_of
from watcher_cputier.audits.documents import AUDIT_VERSION
from watcher_cputier.audits.documents import document
from watcher_cputier.audits.notices import of as notices_of
from watcher_cputier.audits.records import failure_of
from watcher_cputier.audits.records import RecordError
from watcher_cputier.audits.records import with_record
from watcher_cputier.audits.values import Audit
from watcher_cputier.audits.values import Breach
from watcher_cputier.audits.values import Held
from watcher_cputier.audits.values import Live
from watcher_cputier.audits.values import Migration
from watcher_cputier.audits.values import Moment
from watcher_cputier.audits.values import Plan
from watcher_cputier.audits.values import Record
from watcher_cputier.audits.values import Report
from watcher_cputier.audits.values import Series

__all__ = [
    "AUDIT_VERSION",
    "Audit",
    "Breach",
    "Held",
    "Live",
    "Migration",
    "Moment",
    "Plan",
    "Record",
    "RecordError",
    "Report",
    "Series",
    "course_of",
    "document",
    "failure_of",
    "in_all",
    "migration_of",
    "notices_of",
    "with_record",
]
