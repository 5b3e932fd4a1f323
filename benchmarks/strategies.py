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

"""Watcher's own strategies, run as they are on a cloud of ours.

The real strategy classes of python-watcher get a compute model with the
cloud's hosts and instances, and a datasource whose numbers follow from the
instances' names. Nothing else of Watcher runs: no collector, no applier. The
compute model knows CPUs, memory and disk of a host; tiers are not in it, so
what these strategies plan has nothing to do with quotas.

:func:`offload` shows ``vm_workload_consolidation`` what it cannot see: one
tier after the other, a host's quota of the tier is told as its CPUs, the
instances of the tier as its only guests, and its offload phase is run. That
is the most that it could do for quotas.
"""

from collections.abc import Iterable, Mapping
import random
import types
from typing import Any
import zlib

from oslo_config import cfg
from watcher.decision_engine.model import element
from watcher.decision_engine.model import model_root
from watcher.decision_engine.strategy import strategies

from watcher_cputier import model

Move = tuple[str, str]
_DISK_GB = 1_000_000


class Metrics:
    """A datasource: each instance uses a part of its CPUs, always the same.

    The numbers have a mean of a third, and half of the memory is touched.
    """

    NAME = "made up"

    def __init__(self, compute: model_root.ModelRoot) -> None:
        self._compute = compute

    def statistic_aggregation(
        self, resource: Any, kind: str, meter: str, *_rest: Any, **_more: Any
    ) -> float | None:
        """What all of Watcher's strategies ask, one way or another."""
        if kind == "instance":
            if meter == "instance_cpu_usage":
                return _percent(resource.uuid)
            if meter == "instance_ram_usage":
                return float(resource.memory) / 2
            return None
        guests = self._compute.get_node_instances(resource)
        if meter == "host_cpu_usage":
            used = sum(_percent(g.uuid) * g.vcpus for g in guests)
            return used / resource.vcpus
        if meter == "host_ram_usage":
            return sum(float(g.memory) / 2 for g in guests) * 1024
        return None

    def get_instance_cpu_usage(self, resource: Any, **_: Any) -> float:
        return _percent(resource.uuid)

    def get_instance_ram_usage(self, resource: Any, **_: Any) -> float:
        return float(resource.memory) / 2

    def get_instance_root_disk_size(self, resource: Any, **_: Any) -> float:
        return 1.0

    def get_host_cpu_usage(self, resource: Any, *_: Any) -> float | None:
        return self.statistic_aggregation(
            resource, "compute_node", "host_cpu_usage"
        )

    def get_host_ram_usage(self, resource: Any, *_: Any) -> float | None:
        return self.statistic_aggregation(
            resource, "compute_node", "host_ram_usage"
        )


class Full(Metrics):
    """A datasource of guests that use all that they have."""

    def get_instance_cpu_usage(self, resource: Any, **_: Any) -> float:
        return 100.0

    def get_instance_ram_usage(self, resource: Any, **_: Any) -> float:
        return float(resource.memory)

    def get_host_cpu_usage(self, resource: Any, *_: Any) -> float | None:
        return None

    def get_host_ram_usage(self, resource: Any, *_: Any) -> float | None:
        return None


def _percent(uuid: str) -> float:
    """Between 0 and 66, from the name alone."""
    return zlib.crc32(uuid.encode()) % 6667 / 100


def consolidation(cloud: model.Cluster) -> list[Move]:
    """``vm_workload_consolidation`` with its defaults."""
    compute = _model(cloud)
    strategy = _strategy(
        strategies.VMWorkloadConsolidation, compute, Metrics(compute)
    )
    return _run(strategy)


def balance(cloud: model.Cluster) -> list[Move]:
    """``workload_balance``: one migration an audit, by its design.

    Its default threshold, 25 %, is below every host of a cloud in which a
    vCPU is sold three times; with 80 % there are hosts on both sides.
    """
    compute = _model(cloud)
    strategy = _strategy(strategies.WorkloadBalance, compute, Metrics(compute))
    strategy.input_parameters.threshold = 80.0
    return _run(strategy)


def stabilization(cloud: model.Cluster) -> list[Move]:
    """``workload_stabilization``; the chance that it draws on is seeded."""
    compute = _model(cloud)
    random.seed(1)
    return _run(
        _strategy(strategies.WorkloadStabilization, compute, Metrics(compute))
    )


def offload(cloud: model.Cluster) -> list[Move]:
    """The offload phase of ``vm_workload_consolidation``, tier by tier.

    What other tiers have of a host's memory is told as reserved.
    """
    moves: list[Move] = []
    at = {guest.uuid: guest.host for guest in cloud.instances}
    for tier in cloud.tiers:
        guests = []
        others: dict[str, int] = {}
        for guest in cloud.instances:
            home = at[guest.uuid]
            if guest.tier == tier.name:
                guests.append(guest)
            else:
                memory = guest.flavor.memory_mb
                others[home] = others.get(home, 0) + memory
        compute = _model(cloud, guests, tier.resource_class, others)
        strategy = _strategy(
            strategies.VMWorkloadConsolidation, compute, Full(compute)
        )
        strategy.pre_execute()
        strategy.offload_phase({"cpu": 1.0, "ram": 1.0, "disk": 1.0})
        found = _moves(strategy)
        at.update(found)
        moves += found
    return moves


def _model(
    cloud: model.Cluster,
    guests: Iterable[model.Instance] | None = None,
    told: str = "",
    others: Mapping[str, int] | None = None,
) -> model_root.ModelRoot:
    """Watcher's compute model of a cloud.

    :param told: the class that is told to be a host's CPUs, if not VCPU
    :param others: {host: MB that somebody else has}
    """
    reserved = others or {}
    compute = model_root.ModelRoot()
    for host in cloud.hosts:
        found = host.providers[0].inventories
        vcpus, memory = found["VCPU"], found["MEMORY_MB"]
        compute.add_node(
            element.ComputeNode(
                uuid=host.uuid,
                hostname=host.name,
                memory=memory.capacity,
                memory_mb_reserved=reserved.get(host.name, 0),
                memory_ratio=1.0,
                disk=_DISK_GB,
                disk_gb_reserved=0,
                disk_ratio=1.0,
                vcpus=found[told].capacity if told else vcpus.total,
                vcpu_reserved=0,
                vcpu_ratio=1.0 if told else vcpus.allocation_ratio,
                disabled_reason=None,
            )
        )
    for guest in cloud.instances if guests is None else guests:
        found_guest = element.Instance(
            uuid=guest.uuid,
            name=guest.name,
            memory=guest.flavor.memory_mb,
            disk=1,
            vcpus=guest.flavor.vcpus,
            metadata={},
        )
        compute.add_instance(found_guest)
        compute.map_instance(
            found_guest,
            compute.get_node_by_uuid(cloud.host_by_name[guest.host].uuid),
        )
    return compute


def _strategy(
    kind: type, compute: model_root.ModelRoot, metrics: Metrics
) -> Any:
    strategy = kind(config=types.SimpleNamespace(datasources=None))
    strategy._compute_model = compute
    strategy._datasource_backend = metrics
    strategy.input_parameters = types.SimpleNamespace(
        **_defaults(strategy.get_schema())
    )
    strategy.input_parameters.get = vars(strategy.input_parameters).get
    return strategy


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """What an audit without parameters runs with."""
    return {
        name: found.get("default")
        for name, found in schema.get("properties", {}).items()
    }


def _run(strategy: Any) -> list[Move]:
    # Written by the strategies at every step; nobody reads it here.
    cfg.CONF([], project="watcher", default_config_files=[])
    strategy.pre_execute()
    strategy.do_execute()
    return _moves(strategy)


def _moves(strategy: Any) -> list[Move]:
    return [
        (
            action["input_parameters"]["resource_id"],
            action["input_parameters"]["destination_node"],
        )
        for action in strategy.solution.actions
        if action["action_type"] == "migrate"
    ]
