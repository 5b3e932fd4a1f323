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

"""Options of the scenarios, in ``tempest.conf``."""

from oslo_config import cfg

from watcher_cputier.conf import tiers as tiers_conf

service_option = cfg.BoolOpt(
    "watcher_cputier",
    default=True,
    help="Whether the watcher-cputier plugin is installed beside Watcher.",
)

group = cfg.OptGroup(name="cputier", title="CPU service tiers")

OPTIONS = [
    cfg.DictOpt(
        "resource_classes",
        default={
            name: f"CUSTOM_VCPU_{name.upper()}" for name in tiers_conf.BUILT_IN
        },
        help="The tiers, and the resource class of each.",
    ),
    cfg.DictOpt(
        "cpu_shares",
        default={
            name: str(shares)
            for name, (shares, *_) in tiers_conf.BUILT_IN.items()
        },
        help="""
CPU shares of one vCPU of each tier, as the decision engine has them. Flavors
of tiers that are not named here get no shares.
""",
    ),
    cfg.StrOpt(
        "audit_template",
        default="cpu-tiers",
        help="Name of the audit template that audits are created from.",
    ),
    cfg.IntOpt(
        "flavor_ram",
        default=192,
        min=1,
        help="MB of memory of the flavors that are created.",
    ),
    cfg.IntOpt(
        "flavor_disk",
        default=1,
        min=0,
        help="GB of disk of the flavors that are created.",
    ),
    cfg.StrOpt(
        "catalog_type",
        default="infra-optim",
        help="Type of Watcher in the catalogue.",
    ),
    cfg.IntOpt(
        "timeout",
        default=300,
        min=1,
        help="Seconds that an audit or an action plan may take.",
    ),
]
