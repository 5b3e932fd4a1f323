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

"""Whether an instance may move at all, wherever to."""

from collections.abc import Mapping

from watcher_cputier import model
from watcher_cputier.constraints import proposal

# What ties an instance to hardware of its host. Whether another host has a
# matching piece free is not in Placement's answers, so such an instance is
# not movable (R178-R180).
_HARDWARE_SPECS = (
    "accel:device_profile",
    "hw:cpu_policy",
    "hw:cpu_realtime",
    "hw:mem_encryption",
    "hw:mem_page_size",
    "hw:numa_nodes",
    "hw:pmem",
    "hw:tpm_model",
    "hw:tpm_version",
    "pci_passthrough:alias",
)
_HARDWARE_PROPERTIES = (
    "hw_cpu_policy",
    "hw_cpu_realtime",
    "hw_mem_encryption",
    "hw_mem_page_size",
    "hw_numa_nodes",
    "hw_tpm_model",
    "hw_tpm_version",
)
# hw:numa_cpus.0 and the like, of flavors and of images
_HARDWARE_PREFIXES = ("hw:numa_", "hw_numa_cpus", "hw_numa_mem")
_HARMLESS_VALUES = {
    "cpu_policy": ("shared",),
    "cpu_realtime": ("no", "false"),
    "mem_encryption": ("no", "false"),
    # "any" may be served by small pages, the others by huge ones alone.
    "mem_page_size": ("small",),
}
_HARDWARE_CLASSES = frozenset({"PCI_DEVICE", "PCPU", "PGPU", "VGPU"})


def known(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """Watcher's compute model has it: its applier could not find it."""
    if instance.known:
        return None
    return proposal.Rejection(
        rule="known",
        reason="Watcher's compute model does not know it; it counts and stays",
        requirement="R78",
    )


def in_audit_scope(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """The audit's scope does not exclude it."""
    if not instance.excluded:
        return None
    return proposal.Rejection(
        rule="in_audit_scope",
        reason="the audit's scope excludes it",
        requirement="R112",
    )


def opted_in(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """Its owner has not opted out with Watcher's own tag."""
    if not instance.opted_out:
        return None
    return proposal.Rejection(
        rule="opted_in",
        reason="its metadata says optimize=false",
        requirement="R92",
    )


def unlocked(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """It is not locked; Nova would move a locked one for an admin."""
    if not instance.locked:
        return None
    return proposal.Rejection(
        rule="unlocked", reason="it is locked", requirement="R95"
    )


def source_in_service(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """The compute service that it runs on answers; enabled or not."""
    host = cluster.host_by_name.get(instance.host)
    if host is None or host.up:
        return None
    return proposal.Rejection(
        rule="source_in_service",
        reason=f"the compute service of {host.name} is down, and nothing "
        "migrates live from there: bring it back, or evacuate",
        requirement="R183",
    )


def active(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """It runs; Nova live-migrates paused instances too, we do not."""
    if instance.status == "ACTIVE":
        return None
    return proposal.Rejection(
        rule="active",
        reason=f"its status is {instance.status}, not ACTIVE",
        requirement="R162",
    )


def at_rest(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """No operation is under way on it."""
    if not instance.task_state:
        return None
    return proposal.Rejection(
        rule="at_rest",
        reason=f"its task state is {instance.task_state}",
        requirement="R167",
    )


def in_order(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """Placement's and Nova's word on it do not contradict each other."""
    if not instance.in_doubt:
        return None
    return proposal.Rejection(
        rule="in_order", reason=instance.in_doubt, requirement="R170"
    )


def portable(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """Nothing of its host's hardware is tied to it."""
    reason = (
        _by_spec("flavor", instance.flavor.extra_specs, _HARDWARE_SPECS)
        or _by_spec("image", instance.image_properties, _HARDWARE_PROPERTIES)
        or _by_class(cluster, instance)
        or instance.tied
    )
    if not reason:
        return None
    return proposal.Rejection(
        rule="portable",
        reason=f"{reason}: that another host fits cannot be shown",
        requirement="R178",
    )


def _by_spec(
    source: str, told: Mapping[str, str], names: tuple[str, ...]
) -> str:
    """The first key of a flavor or image that asks for hardware."""
    if not told:
        return ""
    for key in sorted(told):
        if key in names or key.startswith(_HARDWARE_PREFIXES):
            # Without the prefix, hw: or hw_.
            harmless = _HARMLESS_VALUES.get(key[3:], ())
            if told[key].lower() not in harmless:
                return f"its {source} asks for {key}={told[key]}"
    return ""


def _by_class(cluster: model.Cluster, instance: model.Instance) -> str:
    """A class that is hardware, or that its flavor does not ask for.

    What it holds without asking for it in the flavor came with a port, an
    image or a device.
    """
    asked = instance.flavor.resources
    hardware = _HARDWARE_CLASSES.intersection(asked)
    if hardware:
        return f"its flavor asks for {min(hardware)}"
    if not instance.allocations:
        return ""
    counted = {tier.resource_class for tier in cluster.tiers}
    for held in instance.allocations.values():
        for name in sorted(held):
            if name not in asked and name not in counted:
                return f"it holds {name}, which its flavor does not ask for"
    return ""


def releasable(
    cluster: model.Cluster, instance: model.Instance
) -> proposal.Rejection | None:
    """Its source would let it go.

    Nova hands the source's allocation to the migration before it moves
    anything. Placement checks that hand-over like a new allocation: where
    an inventory's max_unit, min_unit or step_size no longer admits what the
    instance holds, the migration ends in error.
    """
    host = cluster.host_by_name.get(instance.host)
    if host is None or not instance.allocations:
        return None
    for provider in host.providers + host.shared:
        amounts = instance.allocations.get(provider.uuid, {})
        for name, amount in amounts.items():
            inventory = provider.inventories.get(name)
            if inventory is None:
                continue
            limit = unit_limit(inventory, amount)
            if limit:
                return proposal.Rejection(
                    rule="releasable",
                    reason=f"it holds {amount} {name} on {provider.name}, "
                    f"where {limit}: Placement refuses to hand the "
                    "allocation to a migration until the inventory admits "
                    "it again",
                    requirement="R22",
                )
    return None


def unit_limit(inventory: model.Inventory, amount: int) -> str:
    """The unit rule of an inventory that an amount breaks; else empty.

    Where the rules were not read, Placement's own word on the request
    (:class:`~watcher_cputier.model.Admission`) stands for them.
    """
    if not inventory.detailed:
        return ""
    if amount > inventory.max_unit:
        return f"max_unit is {inventory.max_unit}"
    if amount < inventory.min_unit:
        return f"min_unit is {inventory.min_unit}"
    if amount % inventory.step_size:
        return f"step_size is {inventory.step_size}"
    return ""
