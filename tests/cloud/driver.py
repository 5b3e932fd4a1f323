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

"""The hypervisors: Nova's fake virt driver with hosts of different size.

Nova instantiates a driver from a dotted name and hands it nothing but the
host name, so the declared hosts are kept here, in ``HYPERVISORS``. An entry
outlives the compute service (as guests outlive a restart of nova-compute):
the driver of a restarted service finds its guests again.

Nova only loads drivers below ``nova.virt``. ``register`` therefore announces
this module under the name ``nova.virt.embedded_cloud``. It must be imported
after Nova has decided about eventlet's monkey patching.
"""

from __future__ import annotations

import dataclasses
import sys
import time
import typing
import uuid

from nova import exception
from nova.compute import power_state
from nova.virt import fake

from tests.cloud import spec as cloud_spec

COMPUTE_DRIVER = "embedded_cloud.EmbeddedDriver"
_POLL_SECONDS = 0.05


@dataclasses.dataclass
class MigrationBehaviour:
    """How live migrations off a host (or onto it, if refused) go."""

    duration_seconds: float = 0.2
    outcome: str = "success"


@dataclasses.dataclass
class Hypervisor:
    """What a host is, whether or not its compute service runs."""

    spec: cloud_spec.HostSpec
    behaviour: MigrationBehaviour = dataclasses.field(
        default_factory=MigrationBehaviour
    )
    guests: dict[str, fake.FakeInstance] = dataclasses.field(
        default_factory=dict
    )
    # Running migrations off this host by instance, and how to end them.
    endings: dict[str, str] = dataclasses.field(default_factory=dict)


HYPERVISORS: dict[str, Hypervisor] = {}


def register() -> None:
    """Make the driver loadable under the name that Nova is configured with."""
    sys.modules["nova.virt.embedded_cloud"] = sys.modules[__name__]


def abort_migrations(patience_seconds: float = 3.0) -> None:
    """End what is on its way, so that nothing acts on a reset cloud."""
    running = [h for h in HYPERVISORS.values() if h.endings]
    for hypervisor in running:
        for instance in hypervisor.endings:
            hypervisor.endings[instance] = "aborted"
    deadline = time.monotonic() + patience_seconds
    while any(h.endings for h in running) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


class EmbeddedDriver(fake.FakeDriver):  # type: ignore[misc]
    """A host as it is declared, with migrations that can go wrong."""

    def init_host(self, host: str) -> None:
        super().init_host(host)
        self.hypervisor = HYPERVISORS[host]
        spec = self.hypervisor.spec
        self.vcpus = spec.vcpus
        self.memory_mb = spec.memory_mb
        self.local_gb = spec.disk_gb
        self.resources = fake.Resources(
            vcpus=spec.vcpus, memory_mb=spec.memory_mb, local_gb=spec.disk_gb
        )
        self.instances = self.hypervisor.guests
        self._ending = self.hypervisor.endings

    def get_available_resource(self, nodename: str) -> dict[str, typing.Any]:
        resources = super().get_available_resource(nodename)
        if resources:
            resources["uuid"] = cloud_spec.node_uuid(nodename)
            spec = self.hypervisor.spec
            resources["hypervisor_type"] = spec.hypervisor_type
            resources["hypervisor_version"] = spec.hypervisor_version
        return typing.cast("dict[str, typing.Any]", resources)

    def get_nodenames_by_uuid(self, refresh: bool = False) -> dict[str, str]:
        return {cloud_spec.node_uuid(name): name for name in self._nodes}

    def update_provider_tree(
        self,
        provider_tree: typing.Any,
        nodename: str,
        allocations: typing.Any = None,
    ) -> None:
        spec = self.hypervisor.spec
        inventories = {
            "VCPU": _inventory(spec.vcpus, spec.cpu_allocation_ratio),
            "MEMORY_MB": _inventory(
                spec.memory_mb, spec.memory_allocation_ratio
            ),
        }
        if spec.disk_gb:
            inventories["DISK_GB"] = _inventory(
                spec.disk_gb, spec.disk_allocation_ratio
            )
        for name, fields in spec.inventories.items():
            if name in inventories:
                inventories[name].update(fields)
                if "total" in fields and "max_unit" not in fields:
                    inventories[name]["max_unit"] = fields["total"]
        provider_tree.update_inventory(nodename, inventories)
        self._update_children(provider_tree, nodename)

    def _update_children(
        self, provider_tree: typing.Any, nodename: str
    ) -> None:
        declared = set()
        for child in self.hypervisor.spec.children:
            name = "%s_%s" % (nodename, child.name_suffix)
            declared.add(name)
            if not provider_tree.exists(name):
                provider_tree.new_child(
                    name,
                    nodename,
                    uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
                )
            inventories = {}
            for resource_class, fields in child.inventories.items():
                inventories[resource_class] = (
                    _inventory(fields["total"], 1.0) | fields
                )
            provider_tree.update_inventory(name, inventories)
            provider_tree.update_traits(name, list(child.traits))
        for name in list(provider_tree.get_provider_uuids(nodename)):
            known = provider_tree.data(name)
            if known.name != nodename and known.name not in declared:
                provider_tree.remove(known.name)

    def pause(self, instance: typing.Any) -> None:
        self.instances[instance.uuid].state = power_state.PAUSED

    def unpause(self, instance: typing.Any) -> None:
        self.instances[instance.uuid].state = power_state.RUNNING

    # Live migration. The manager calls these on the source, except for those
    # that say "destination".

    def check_can_live_migrate_destination(
        self,
        context: typing.Any,
        instance: typing.Any,
        *args: typing.Any,
        **kwargs: typing.Any,
    ) -> typing.Any:
        source = HYPERVISORS.get(instance.host)
        behaviours = [self.hypervisor.behaviour]
        if source is not None:
            behaviours.append(source.behaviour)
        if any(b.outcome == "refuse" for b in behaviours):
            raise exception.MigrationPreCheckError(
                reason="the embedded cloud was told to refuse"
            )
        return super().check_can_live_migrate_destination(
            context, instance, *args, **kwargs
        )

    def live_migration(
        self,
        context: typing.Any,
        instance: typing.Any,
        dest: str,
        post_method: typing.Any,
        recover_method: typing.Any,
        block_migration: bool = False,
        migrate_data: typing.Any = None,
    ) -> None:
        behaviour = self.hypervisor.behaviour
        deadline = time.monotonic() + behaviour.duration_seconds
        self._ending[instance.uuid] = ""
        try:
            while (
                time.monotonic() < deadline and not self._ending[instance.uuid]
            ):
                time.sleep(min(_POLL_SECONDS, behaviour.duration_seconds))
            ending = self._ending[instance.uuid]
            if ending == "aborted":
                recover_method(
                    context,
                    instance,
                    dest,
                    migrate_data,
                    migration_status="cancelled",
                )
            elif behaviour.outcome == "fail" and ending != "forced":
                recover_method(context, instance, dest, migrate_data)
            else:
                post_method(
                    context, instance, dest, block_migration, migrate_data
                )
        finally:
            self._ending.pop(instance.uuid, None)

    def live_migration_force_complete(self, instance: typing.Any) -> None:
        if instance.uuid in self._ending:
            self._ending[instance.uuid] = "forced"

    def live_migration_abort(self, instance: typing.Any) -> None:
        if instance.uuid in self._ending:
            self._ending[instance.uuid] = "aborted"

    def post_live_migration(
        self,
        context: typing.Any,
        instance: typing.Any,
        block_device_info: typing.Any,
        migrate_data: typing.Any = None,
    ) -> None:
        self.destroy(
            context,
            instance,
            network_info=None,
            block_device_info=block_device_info,
        )

    def post_live_migration_at_destination(
        self,
        context: typing.Any,
        instance: typing.Any,
        *args: typing.Any,
        **kwargs: typing.Any,
    ) -> None:
        super().post_live_migration_at_destination(
            context, instance, *args, **kwargs
        )
        if instance.power_state is not None:
            # A paused guest arrives paused.
            self.instances[instance.uuid].state = instance.power_state


def _inventory(total: float, ratio: float) -> dict[str, float]:
    return {
        "total": total,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        "allocation_ratio": ratio,
    }
