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

"""Flavors of tiers, a host over its quota, and the audit that cures it."""

from collections.abc import Callable, Iterator
from typing import Any

from tempest import config
from tempest.common import utils
from tempest.lib import decorators
from tempest.lib.common.utils import data_utils
from tempest.lib.common.utils import test_utils
from tempest.scenario import manager

CONF = config.CONF
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "SUPERSEDED", "SUSPENDED")


class TestCPUTiers(manager.ScenarioTest):
    """A host that holds more of a tier than it may is brought back.

    Needs two compute hosts with inventories of the tiers' classes, live
    migration between them, and nova-compute with ``[compute]
    resource_provider_association_refresh = 0``: else it puts back the
    inventory that the scenario lowers.
    """

    credentials = ("primary", "admin")
    # os-availability-zone:host of admins is older, this says the host itself.
    compute_min_microversion = "2.74"
    # reserved may be all of total from there on.
    placement_min_microversion = "1.26"

    @classmethod
    def skip_checks(cls) -> None:
        """Only where there are tiers, and a host to go to."""
        super().skip_checks()
        if not CONF.service_available.watcher_cputier:
            raise cls.skipException("watcher-cputier is not available")
        if not CONF.compute_feature_enabled.live_migration:
            raise cls.skipException("live migration is not available")
        if CONF.compute.min_compute_nodes < 2:
            raise cls.skipException("two compute hosts are needed")

    @classmethod
    def setup_clients(cls) -> None:
        """The clients of an administrator."""
        super().setup_clients()
        cls.optimize = cls.os_admin.infra_optim.InfraOptimClient()
        cls.placement = cls.os_admin.resource_providers_client
        cls.flavors = cls.os_admin.flavors_client
        cls.servers = cls.os_admin.servers_client

    @decorators.idempotent_id("0c5d2b8e-5a6f-4d8b-9a55-6f3d0e9c2b71")
    @decorators.attr(type=["multinode", "slow"])
    @utils.services("compute")
    def test_a_host_over_quota_is_brought_back(self) -> None:
        """An instance of each tier; the first tier's inventory is lowered.

        1. Create a flavor of each tier, and boot an instance of each on one
           host.
        2. Lower that host's inventory of the highest tier by one unit below
           what is allocated there.
        3. Run an audit from the template. Its action plan moves an instance
           of that tier.
        4. Start the action plan. Afterwards every host is within its
           quotas, in Placement's own numbers.
        """
        classes = CONF.cputier.resource_classes
        tier = next(iter(classes))
        host = self._roomiest_host(classes.values())
        for name, resource_class in classes.items():
            self._boot(self._create_flavor(name, resource_class), host["name"])
        self.assertEqual([], list(self._over_quota()))

        self._lower(host, classes[tier])
        self.assertEqual(
            [(host["name"], classes[tier], 1)], list(self._over_quota())
        )

        template = self.optimize.show_audit_template(
            CONF.cputier.audit_template
        )
        audit = self.optimize.create_audit(template["uuid"])
        self.addCleanup(self.optimize.delete_audit, audit["uuid"])
        self._wait(self.optimize.show_audit, audit["uuid"])
        (plan,) = self.optimize.list_action_plans(audit["uuid"])
        self.addCleanup(self.optimize.delete_action_plan, plan["uuid"])
        self.assertEqual("RECOMMENDED", plan["state"])
        planned = [
            action["input_parameters"]
            for action in self.optimize.list_actions(plan["uuid"])
        ]
        self.assertEqual([tier], [one["tier"] for one in planned])
        (moved,) = (one["resource_id"] for one in planned)
        self.assertEqual(host["name"], self._host_of(moved))

        self.optimize.start_action_plan(plan["uuid"])
        self._wait(self.optimize.show_action_plan, plan["uuid"])

        self.assertEqual([], list(self._over_quota()))
        self.assertNotEqual(host["name"], self._host_of(moved))

    # The cloud.

    def _host_of(self, server: str) -> str:
        """Where an instance runs, by the name that Placement has."""
        shown = self.servers.show_server(server)["server"]
        self.assertEqual("ACTIVE", shown["status"])
        return str(shown["OS-EXT-SRV-ATTR:hypervisor_hostname"])

    def _providers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.placement.list_resource_providers()[
            "resource_providers"
        ]
        return found

    def _inventories(self, provider: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (
            self.placement.list_resource_provider_inventories(provider["uuid"])
        )
        return found

    def _usages(self, provider: dict[str, Any]) -> dict[str, int]:
        found: dict[str, int] = self.placement.list_resource_provider_usages(
            provider["uuid"]
        )["usages"]
        return found

    def _over_quota(self) -> Iterator[tuple[str, str, int]]:
        """(host, resource class, units above its quota)."""
        for provider in self._providers():
            usages = self._usages(provider)
            inventories = self._inventories(provider)["inventories"]
            for name in CONF.cputier.resource_classes.values():
                if name not in inventories:
                    continue
                excess = usages[name] - _capacity(inventories[name])
                if excess > 0:
                    yield provider["name"], name, excess

    def _roomiest_host(self, classes: Any) -> dict[str, Any]:
        """The host with the most units left in its scarcest class.

        Another one has to have room as well, for an instance to go to.
        """
        room = {}
        for provider in self._providers():
            usages = self._usages(provider)
            inventories = self._inventories(provider)["inventories"]
            if all(name in inventories for name in classes):
                room[provider["name"]] = (
                    min(
                        _capacity(inventories[name]) - usages[name]
                        for name in classes
                    ),
                    provider,
                )
        fit = sorted(name for name, (units, _) in room.items() if units > 0)
        if len(fit) < 2:
            raise self.skipException(
                "two hosts with units left of every tier are needed"
            )
        return max((room[name] for name in fit), key=lambda one: one[0])[1]

    def _create_flavor(self, tier: str, resource_class: str) -> str:
        """A flavor of one vCPU of a tier; its id."""
        flavor = self.flavors.create_flavor(
            name=data_utils.rand_name(
                f"{tier}.one", prefix=CONF.resource_name_prefix
            ),
            vcpus=1,
            ram=CONF.cputier.flavor_ram,
            disk=CONF.cputier.flavor_disk,
        )["flavor"]
        self.addCleanup(self.flavors.delete_flavor, flavor["id"])
        specs = {f"resources:{resource_class}": "1"}
        if tier in CONF.cputier.cpu_shares:
            specs["quota:cpu_shares"] = CONF.cputier.cpu_shares[tier]
        self.flavors.set_flavor_extra_spec(flavor["id"], **specs)
        return str(flavor["id"])

    def _boot(self, flavor: str, host: str) -> None:
        """An instance of the administrator, on this host."""
        options: dict[str, Any] = {"hypervisor_hostname": host}
        if not CONF.service_available.neutron:
            options["networks"] = "none"
        self.create_server(flavor=flavor, clients=self.os_admin, **options)

    def _lower(self, host: dict[str, Any], resource_class: str) -> None:
        """Leave one unit less of a class than is allocated.

        ``reserved`` may be as large as ``total``, so that any host will do.
        """
        before = self._inventories(host)["inventories"][resource_class]
        used = self._usages(host)[resource_class]
        lowered = dict(
            before,
            allocation_ratio=1.0,
            reserved=before["total"] - (used - 1),
        )
        self._put(host, resource_class, lowered)
        self.addCleanup(self._put, host, resource_class, before)

    def _put(
        self,
        host: dict[str, Any],
        resource_class: str,
        inventory: dict[str, Any],
    ) -> None:
        told = self._inventories(host)
        told["inventories"][resource_class] = inventory
        self.placement.update_resource_providers_inventories(
            host["uuid"],
            resource_provider_generation=told["resource_provider_generation"],
            inventories=told["inventories"],
        )

    def _wait(self, show: Callable[[str], dict[str, Any]], uuid: str) -> None:
        """Until an audit or an action plan has succeeded."""
        states: list[str] = []

        def over() -> bool:
            states.append(show(uuid)["state"])
            return states[-1] in _OVER

        test_utils.call_until_true(over, CONF.cputier.timeout, 1)
        told = show(uuid)
        self.assertEqual(
            "SUCCEEDED", told["state"], told.get("status_message")
        )


def _capacity(inventory: dict[str, Any]) -> int:
    return int(
        (inventory["total"] - inventory["reserved"])
        * inventory["allocation_ratio"]
    )
