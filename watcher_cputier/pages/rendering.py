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

"""Templates, and what keeps a page to itself.

Names of instances come from tenants. Everything is escaped on its way into
a page; besides, the page's own policy forbids the browser to load anything
and to run any script or style but the page's own, which it knows by their
digests.
"""

import base64
import functools
import hashlib
from importlib import resources
from typing import Any

import jinja2
import markupsafe

from watcher_cputier.pages import heat
from watcher_cputier.pages import told

# Longer names may be broken over lines.
_LONGEST = 32


def _template(name: str) -> str:
    found = resources.files("watcher_cputier.pages").joinpath(
        "templates", name
    )
    return found.read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        number=told.number,
        cpus=told.cpus,
        duration=told.duration,
        plural=told.plural,
        short=told.short,
        places=told.places,
        refusal=told.refusal,
    )
    found.globals.update(
        percent=told.percent,
        signs=heat.LEVELS,
        level_of=heat.level_of,
        missing=told.MISSING,
        wide=_wide,
    )
    return found


def _wide(name: str) -> str:
    """The class of a cell with a name: most are not to be broken."""
    return "name" if len(name) <= _LONGEST else "long"


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(raw).decode('ascii')}'"


def rendered(name: str, **values: Any) -> str:
    """A page from the template of a name.

    The same values give the same bytes.
    """
    # Both are the package's own text.
    style = markupsafe.Markup(_template("page.css"))  # noqa: S704
    script = markupsafe.Markup(_template("page.js"))  # noqa: S704
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(name)
    return page.render(style=style, script=script, policy=policy, **values)
