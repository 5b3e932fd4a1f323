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

"""Entry point ``oslo.config.opts``: what the sample file lists."""

from oslo_config import cfg

from watcher_cputier.conf import telemetry
from watcher_cputier.conf import tiers


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """All options by section, those of the built-in tiers included."""
    return [
        (tiers.GROUP, tiers.OPTIONS),
        (telemetry.GROUP, telemetry.OPTIONS),
        *(
            (tiers.TIER_GROUP_PREFIX + name, tiers.tier_options(name))
            for name in tiers.BUILT_IN
        ),
    ]
