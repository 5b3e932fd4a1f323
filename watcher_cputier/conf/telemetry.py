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


"""Where telemetry comes from, and what it means: ``[cputier_telemetry]``.

Two metrics are read of every instance: the CPU time that it used and its
steal, the time that its runnable vCPUs waited for a CPU. Names and units
differ from cloud to cloud; a wrong unit is noticed before anything is decided
on it.
"""

from oslo_config import cfg

from watcher_cputier import errors

GROUP = "cputier_telemetry"

_NAME = r"^[A-Za-z0-9_.:*-]+$"
UNITS = [
    ("ns", "A counter of nanoseconds, all vCPUs together."),
    ("s", "A counter of seconds, all vCPUs together."),
    ("fraction", "A gauge from 0 to 1, the mean of the vCPUs."),
    ("percent", "A gauge from 0 to 100, the mean of the vCPUs."),
]

OPTIONS = [
    cfg.StrOpt(
        "datasource",
        help="""
Where telemetry is read: the name of an entry point in the namespace
``watcher_cputier.datasources`` (``gnocchi``, ``prometheus``, ``aetos``).

Without it Watcher's own preference holds: the first of
``[watcher_datasources] datasources`` that there is an entry point for, that
the cloud has, and that has both metrics.
""",
    ),
    cfg.StrOpt(
        "cpu_metric",
        default="cpu",
        regex=_NAME,
        help="""
The metric of the CPU time that an instance used, as Ceilometer names it.

In Gnocchi the name may hold ``*``, for metrics that are one per vCPU
(``vcpu.*.time``): counters are added up, gauges averaged.
""",
    ),
    cfg.StrOpt(
        "cpu_unit",
        default="ns",
        choices=UNITS,
        help="""
The unit of ``cpu_metric``.
""",
    ),
    cfg.BoolOpt(
        "cpu_includes_wait",
        default=False,
        help="""
Whether ``cpu_metric`` counts the time that runnable vCPUs waited for a CPU.

Ceilometer's ``cpu`` is the sum of libvirt's ``vcpu.N.time`` and
``vcpu.N.wait``. The kernel tells the latter only where scheduler statistics
are switched on (``kernel.sched_schedstats``); there the wait is the steal,
which is then taken off.
""",
    ),
    cfg.StrOpt(
        "steal_metric",
        default="cpu.steal",
        regex=_NAME,
        help="""
The metric of an instance's steal, as Ceilometer names it.

The default is what this distribution's pollster publishes. In Gnocchi the
name may hold ``*``, as that of ``cpu_metric``.
""",
    ),
    cfg.StrOpt(
        "steal_unit",
        default="ns",
        choices=UNITS,
        help="""
The unit of ``steal_metric``.

Some exporters have nanoseconds under a name that ends in ``_seconds``.
""",
    ),
    cfg.StrOpt(
        "aggregation",
        default="rate:mean",
        regex=r"^rate:[a-z0-9]+$",
        help="""
How Gnocchi's archive policy summarises the samples of a counter.

``rate:mean`` is the mean difference between consecutive samples. Gauges are
read as ``mean``.
""",
    ),
    cfg.IntOpt(
        "polling_interval_seconds",
        default=300,
        min=1,
        max=86400,
        help="""
How often Ceilometer polls the two metrics: ``interval`` of their source in
``polling.yaml``.

Gnocchi's rates are differences between two samples, whatever the time between
them: a wrong interval makes all usage too large or too small by the same
factor.
""",
    ),
    cfg.StrOpt(
        "resource_type",
        default="instance",
        help="""
Gnocchi's resource type of instances.
""",
    ),
    cfg.IntOpt(
        "lag_seconds",
        default=120,
        min=0,
        max=86400,
        help="""
How late samples may arrive.

Windows end at least so long before an audit looks. Where the newest window is
still empty, an older one is taken, and the audit says so.
""",
    ),
    cfg.FloatOpt(
        "minimum_coverage",
        default=0.5,
        min=0,
        max=1,
        help="""
The share of running instances that must have both metrics.

Below it nothing is concluded from telemetry. Above it an instance without
data is *unknown*, and nobody else.
""",
    ),
    cfg.IntOpt(
        "chunk_size",
        default=500,
        min=1,
        max=1000,
        help="""
How many instances one request asks about.
""",
    ),
    cfg.IntOpt(
        "threads",
        default=2,
        min=1,
        max=16,
        help="""
How many requests are sent at once.
""",
    ),
    cfg.IntOpt(
        "timeout_seconds",
        default=60,
        min=1,
        help="""
How long one request may take.

All of them together have the time budget of reading the cloud, ``[cputier]
read_timeout_seconds``.
""",
    ),
]

PROMETHEUS_OPTIONS = [
    cfg.StrOpt(
        "prometheus_cpu_metric",
        default="ceilometer_cpu",
        help="""
The metric of the CPU time that an instance used, as Prometheus names it;
``cpu_unit`` is its unit.
""",
    ),
    cfg.StrOpt(
        "prometheus_steal_metric",
        default="ceilometer_cpu_steal",
        help="""
The metric of an instance's steal, as Prometheus names it; ``steal_unit`` is
its unit.
""",
    ),
    cfg.StrOpt(
        "prometheus_cpu_query",
        help="""
PromQL that tells the CPU metric of each instance, where the metric does not
carry the instance's uuid in a label.

The result has one series for each instance, with the label that
``instance_uuid_label`` of ``[prometheus_client]`` or ``[aetos_client]``
names: the rate per second of a counter in ``cpu_unit``, or the mean of a
gauge. What stands in angle brackets is filled in: ``<metric>``, ``<label>``,
``<instances>`` (a regular expression of uuids), ``<series>`` (the metric with
the label matched by it), ``<window>`` (a duration such as ``300s``) and
``<seconds>`` (its number). Without this option a counter is read as

``sum by (<label>) ((<series> - <series> offset <window>) /
(timestamp(<series>) - timestamp(<series> offset <window>) > <seconds> / 2))``

and a gauge as ``avg by (<label>) (avg_over_time(<series>[<window>]))``.
""",
    ),
    cfg.StrOpt(
        "prometheus_steal_query",
        help="""
PromQL that tells the steal metric of each instance: as
``prometheus_cpu_query``.
""",
    ),
]
OPTIONS += PROMETHEUS_OPTIONS


def register(conf: cfg.ConfigOpts) -> None:
    """Register the options; doing so twice is harmless."""
    conf.register_opts(OPTIONS, group=GROUP)


def read(conf: cfg.ConfigOpts) -> cfg.ConfigOpts.GroupAttr:
    """The group, every value of it checked.

    :raises ConfigurationError: if a value is not of its option's form
    """
    register(conf)
    group = conf[GROUP]
    try:
        for option in OPTIONS:
            group[option.dest]
    except (cfg.ConfigFileValueError, ValueError) as exc:
        raise errors.ConfigurationError(
            str(exc), where="watcher.conf"
        ) from exc
    return group
