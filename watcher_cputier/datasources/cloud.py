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

"""All readers together: the way from a connection to a Cluster.

The two services are asked at the same time; Placement is read after Nova's
migrations, so that a migration that starts in between is told by a consumer
that no record explains rather than missed.
"""

from collections.abc import Callable
from typing import Any

from openstack import connection as sdk
from oslo_config import cfg

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import placement
from watcher_cputier.datasources import snapshot


def connection(osc: Any, conf: cfg.ConfigOpts) -> sdk.Connection:
    """A connection with Watcher's own credentials, region and interface.

    :param osc: a ``watcher.common.clients.OpenStackClients``
    """
    options: dict[str, Any] = {}
    for service, sections in (
        ("compute", ("nova", "nova_client")),
        ("placement", ("placement", "placement_client")),
    ):
        options.update(_adapter_options(conf, service, sections))
    return sdk.Connection(session=osc.session, **options)


def _adapter_options(
    conf: cfg.ConfigOpts, service: str, sections: tuple[str, ...]
) -> dict[str, Any]:
    """Region and interface of a service, whichever release named them.

    Watcher before 2026.1 has them in ``[nova_client]`` and
    ``[placement_client]``, later ones in ``[nova]`` and ``[placement]``.
    """
    found: dict[str, Any] = {}
    for section in sections:
        if section not in conf:
            continue
        group = conf[section]
        for option, name in (
            ("region_name", "region_name"),
            ("interface", "interface"),
            ("endpoint_type", "interface"),
            ("endpoint_override", "endpoint_override"),
        ):
            value = group.get(option) if option in group else None
            if option == "endpoint_type" and value:
                # Watcher's old default is written publicURL.
                value = value.removesuffix("URL")
            if value:
                found.setdefault(f"{service}_{name}", value)
        interfaces = (
            group.valid_interfaces if "valid_interfaces" in group else None
        )
        if interfaces:
            found.setdefault(f"{service}_interface", list(interfaces)[0])
    return found


class Reader:
    """Reads a whole cloud through one connection."""

    def __init__(self, connected: sdk.Connection) -> None:
        self.nova = nova.Nova(connected.compute)
        self.placement = placement.Placement(connected.placement)

    def check_access(self) -> None:
        """Try every kind of request that reading needs (R79).

        :raises ServiceError: that names all that is missing
        """
        missing = [*self.nova.check_access(), *self.placement.check_access()]
        if missing:
            raise errors.ServiceError("; ".join(str(exc) for exc in missing))

    def get_cluster(
        self,
        scope: Callable[[], compute_model.Scope],
        tiers: tuple[model.Tier, ...],
        default_tier: str | None = None,
        *,
        refresh: Callable[[], None] | None = None,
    ) -> model.Cluster:
        """Read and put together the whole picture.

        :param scope: gives the audit's scope, called again after a refresh
        :param refresh: synchronises Watcher's model; called once, if hosts
            in scope hold servers that it does not know
        :raises TierError: if it cannot look
        """
        self.check_access()
        scoped = scope()
        cloud = self.nova.get_cloud()
        if refresh is not None and snapshot.strangers(scoped, cloud):
            refresh()
            scoped = scope()
        providers = self.placement.get_providers()
        return snapshot.assemble(
            scoped, cloud, providers, tiers, default_tier
        )
