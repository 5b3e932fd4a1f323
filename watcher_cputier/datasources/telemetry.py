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


"""What instances used: datasources behind one Protocol (N10, N11).

A datasource answers one question about one metric for all instances at once.
Two metrics make up telemetry: the CPU time that an instance used, and its
*steal*, the time that its runnable vCPUs waited for a CPU. Which source is
asked, and what the metrics are called there, is configuration
(``[cputier_telemetry]``).

A distribution adds a datasource as an entry point in the namespace
``watcher_cputier.datasources``; the entry point names a factory::

    def factory(conf, connected, deadline):
        return MySource(conf.my_plugin.url, deadline)

    :param conf: the service's configuration
    :param connected: an ``openstack.connection.Connection`` with Watcher's
        credentials; ``connected.session`` is its keystoneauth session
    :param deadline: ``time.monotonic()`` after which nothing more is asked
    :returns: a :class:`Source`
    :raises NotDeployed: if the cloud has no such service
    :raises ConfigurationError: if an option is unusable

A missing number is never zero: what a source cannot tell is left out of its
answer, and who is left out has no reading.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import datetime
from typing import Any, Protocol, TypeVar

from openstack import connection as sdk
from oslo_config import cfg
from oslo_log import log
import stevedore
from stevedore import exception as stevedore_exception

from watcher_cputier import errors
from watcher_cputier import loads
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import vetting
from watcher_cputier.conf import telemetry as telemetry_conf

LOG = log.getLogger(__name__)

_T = TypeVar("_T")

NAMESPACE = "watcher_cputier.datasources"
# Where Watcher has a preference: that of the strategy overrides the general.
_PREFERENCES = (
    "watcher_strategies.domain_capacity_enforcement",
    "watcher_datasources",
)

CPU = "cpu"
STEAL = "steal"

# Windows that an audit may look back further where the newest are empty, and
# one more before the first, which tells a gap.
_LATE_WINDOWS = 2
_BEFORE = 1
# Where nothing is found: how long ago there may have been something, and how
# many instances are asked.
_LOOKING_BACK_SECONDS = 86400
_LOOKING_AHEAD_SECONDS = 3600
_SAMPLE = 50
# A share of readings that one reason rejects, from which on something is
# wrong with more than single instances.
_MANY = 0.1


class NotDeployed(errors.ServiceError):
    """The cloud does not have this service; another may be asked instead."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What one of the two numbers is called, and in what it is counted.

    :param role: ``cpu`` or ``steal``
    :param name: of the metric, in the source's own words
    :param unit: ``ns`` or ``s``: a counter of CPU time; ``fraction`` or
        ``percent``: a gauge, of one vCPU
    :param aggregation: how the source summarises a counter's samples, where
        it offers more than one way
    """

    role: str
    name: str
    unit: str
    aggregation: str = "rate:mean"

    @property
    def cumulative(self) -> bool:
        """Whether it is a counter, of which the rate is wanted."""
        return self.unit in ("ns", "s")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whose values are wanted, for which windows.

    :param instances: uuids, sorted
    :param begin: of the first window, in seconds since the epoch, a multiple
        of ``window_seconds``
    :param end: of the last window (exclusive), likewise
    """

    instances: tuple[str, ...]
    begin: int
    end: int
    window_seconds: int

    @property
    def windows(self) -> tuple[int, ...]:
        """When each window begins, oldest first."""
        return tuple(range(self.begin, self.end, self.window_seconds))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a source has on one metric.

    :param values: {instance uuid: {begin of a window: value}}, for the whole
        instance. A counter's value is its rate of change per second, in the
        metric's unit (``ns`` per second, ``s`` per second), added up over
        the vCPUs where the source has one counter for each. A gauge's value
        is its mean in the window, in the metric's unit, averaged over the
        vCPUs likewise. Windows and instances without a value are left out.
        Values go in as they are: negative, infinite and odd ones are for
        vetting to reject
    :param absent: {instance uuid: why it is not among the values}, where the
        source knows more than that it has nothing
    :param newest: when the newest window that has any value begins; None if
        there is no value
    :param reach_seconds: how far before its window a value may reach: a
        difference between two samples reaches back by the time between them
    :param granularity_seconds: of the points that the source has; None where
        it computes any (or does not know). Another one than the question's
        says that it could not answer for these windows
    :param findings: what an operator should know about the source
    """

    values: Mapping[str, Mapping[int, float]] = dataclasses.field(
        default_factory=model.frozen_map
    )
    absent: Mapping[str, str] = dataclasses.field(
        default_factory=model.frozen_map
    )
    newest: int | None = None
    reach_seconds: int = 0
    granularity_seconds: int | None = None
    findings: tuple[model.Finding, ...] = ()


class Source(Protocol):
    """A datasource, as the reader asks it."""

    @property
    def name(self) -> str:
        """Its name, the entry point's."""

    def metrics(self) -> tuple[Metric, Metric]:
        """The CPU and the steal metric, as this source calls them.

        :raises ConfigurationError: if an option is unusable
        """

    def offers(self, metric: Metric) -> bool:
        """Whether it has this metric for any instance at all.

        :raises ServiceError: if it could not look
        """

    def get(self, metric: Metric, question: Question) -> Answer:
        """The values of a metric, for all instances of the question.

        An instance that the source does not know is absent, no error.

        :raises ServiceError: if it could not look: unreachable, forbidden,
            failing or too slow
        :raises ConfigurationError: if an option makes no sense there
        """


Factory = Callable[[cfg.ConfigOpts, sdk.Connection, float | None], Source]


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """What a source answered on both metrics."""

    source: Source
    cpu_metric: Metric
    steal_metric: Metric
    cpu: Answer
    steal: Answer

    @property
    def both(self) -> tuple[tuple[Metric, Answer], tuple[Metric, Answer]]:
        return (self.cpu_metric, self.cpu), (self.steal_metric, self.steal)


class Reader:
    """Reads telemetry through whichever source is configured.

    :param conf: the service's configuration
    :param connected: a connection with Watcher's credentials
    :param deadline: ``time.monotonic()`` after which nothing more is asked
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        connected: sdk.Connection,
        deadline: float | None = None,
    ) -> None:
        self._conf = conf
        self._connected = connected
        self._deadline = deadline
        self._options = telemetry_conf.read(conf)
        #: What was read, from where and how complete, in one sentence.
        self.summary = ""

    def get_telemetry(
        self,
        cluster: model.Cluster,
        params: parameters.Parameters,
        now: int,
    ) -> tuple[model.Telemetry, tuple[model.Finding, ...]]:
        """What the instances of hosts in scope used, as far as it is fit.

        :param now: seconds since the epoch
        :returns: the telemetry, and what an operator should know about it
        :raises ServiceError: if there is none to conclude anything from:
            no source, a metric that nobody has, stale, or of too few
        :raises ConfigurationError: if an option is unusable, or a unit
            implausible
        """
        scoped = {host.name for host in cluster.hosts if host.in_scope}
        instances = tuple(
            sorted(
                (
                    i
                    for i in cluster.instances
                    if i.host in scoped and i.status not in loads.STOPPED
                ),
                key=lambda i: i.uuid,
            )
        )
        question = self._question(instances, params, now)
        if not instances:
            self.summary = "no instances to read telemetry of"
            return (
                model.Telemetry(
                    source="none",
                    window_seconds=params.window_seconds,
                    windows=question.windows[-params.windows :],
                ),
                (),
            )
        asked = self._ask(question, now)
        _check_units(asked, instances)
        windows, late = _windows(question, asked, params.windows)
        findings = [*asked.cpu.findings, *asked.steal.findings, *late]
        findings += self._coverage(asked, instances, windows)
        telemetry = vetting.vet(
            source=asked.source.name,
            windows=windows,
            window_seconds=params.window_seconds,
            instances=instances,
            cpu=_measured(asked.cpu_metric, asked.cpu),
            steal=_measured(asked.steal_metric, asked.steal),
            changes=cluster.changes_by_instance,
            cpu_includes_wait=self._options.cpu_includes_wait,
        )
        findings += _rejections(telemetry)
        self.summary = _summary(telemetry, asked, len(instances))
        return telemetry, tuple(dict.fromkeys(findings))

    def _question(
        self,
        instances: Sequence[model.Instance],
        params: parameters.Parameters,
        now: int,
    ) -> Question:
        """Windows aligned to their length that have safely ended."""
        length = params.window_seconds
        end = (now - self._options.lag_seconds) // length * length
        asked = params.windows + _LATE_WINDOWS + _BEFORE
        return Question(
            instances=tuple(instance.uuid for instance in instances),
            begin=end - asked * length,
            end=end,
            window_seconds=length,
        )

    def _ask(self, question: Question, now: int) -> _Asked:
        """The answers of the first source that has both metrics.

        One that is named in the options has to have them.

        :raises ServiceError: the first one's word, if none has
        """
        failures: list[errors.ServiceError] = []
        for name in preference(self._conf):
            try:
                source = load(
                    name, self._conf, self._connected, self._deadline
                )
                return _get_both(source, question, now)
            except (NotDeployed, NoData) as exc:
                failures.append(exc)
        if len(failures) == 1:
            raise failures[0]
        there = [exc for exc in failures if not isinstance(exc, NotDeployed)]
        if len(there) == 1:
            raise there[0]
        kind = NoData if there else NotDeployed
        raise kind(
            "; ".join(str(exc).rstrip(".") for exc in there or failures)
        )

    def _coverage(
        self,
        asked: _Asked,
        instances: Sequence[model.Instance],
        windows: Sequence[int],
    ) -> Iterator[model.Finding]:
        """How many running instances have data in one of the windows.

        :raises NoData: if too few have
        """
        running = [i for i in instances if i.status == "ACTIVE"]
        without = {
            metric: {i.uuid for i in running if not _has(answer, i, windows)}
            for metric, answer in asked.both
        }
        either = frozenset[str]().union(*without.values())
        lacking = [i for i in running if i.uuid in either]
        if not lacking:
            return
        what = " and ".join(
            f"{metric.name} of {len(found)}"
            for metric, found in without.items()
            if found
        )
        text = (
            f"{len(lacking)} of {len(running)} running instances have no "
            f"telemetry ({what} is missing): "
            f"{errors.some(sorted(i.name for i in lacking))}"
            f"{_reasons(asked, lacking)}"
        )
        covered = 1 - len(lacking) / len(running)
        if covered < self._options.minimum_coverage:
            raise NoData(
                text,
                where=f"coverage in {asked.source.name}",
                cure="Check the pollsters of the hosts that they are on, and "
                "that Watcher's user may read every project's metrics, or "
                f"lower [{telemetry_conf.GROUP}] minimum_coverage",
            )
        yield model.Finding(
            kind="telemetry_coverage",
            subject=asked.source.name,
            text=f"{text}. They count as unknown. Check the pollsters of the "
            "hosts that they are on",
        )


class NoData(errors.ServiceError):
    """The source answers, and has nothing to conclude anything from."""


def preference(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    """Names of the sources to try, the preferred one first.

    The option decides; else Watcher's own preference does, less what there
    is no entry point for.

    :raises ConfigurationError: if none is left
    """
    named = telemetry_conf.read(conf).datasource
    if named:
        return (str(named),)
    option = "datasources"
    group = next(
        (
            name
            for name in _PREFERENCES
            if name in conf and conf[name].get(option)
        ),
        "watcher_datasources",
    )
    wanted = conf[group][option] if group in conf else ["gnocchi"]
    known = stevedore.ExtensionManager(NAMESPACE).names()
    found = tuple(name for name in wanted or () if name in known)
    if not found:
        raise errors.ConfigurationError(
            f"none of {', '.join(wanted or ()) or 'no datasource'} is one "
            "that telemetry can be read from",
            where=f"[{group}] {option}",
            cure=f"Name one of {', '.join(sorted(known))} there, or in "
            f"[{telemetry_conf.GROUP}] datasource",
        )
    return found


def load(
    name: str,
    conf: cfg.ConfigOpts,
    connected: sdk.Connection,
    deadline: float | None,
) -> Source:
    """The source of an entry point.

    :raises ConfigurationError: if there is none, or it cannot be loaded
    :raises NotDeployed: if the cloud does not have it
    """
    option = f"[{telemetry_conf.GROUP}] datasource"
    try:
        manager = stevedore.DriverManager(
            NAMESPACE, name, on_load_failure_callback=_raise
        )
    except stevedore_exception.NoMatches as exc:
        known = sorted(stevedore.ExtensionManager(NAMESPACE).names())
        raise errors.ConfigurationError(
            f"no entry point {name!r} in {NAMESPACE}",
            where=option,
            cure=f"There are {', '.join(known)}",
        ) from exc
    except Exception as exc:
        raise errors.ConfigurationError(
            f"{name} could not be loaded: {exc!r}",
            where=option,
            cure="Install what it needs into the decision engine's "
            "environment",
        ) from exc
    factory: Factory = manager.driver
    try:
        return factory(conf, connected, deadline)
    except errors.TierError:
        raise
    except Exception as exc:
        raise errors.ConfigurationError(
            f"{name} could not be started: {exc!r}", where=option
        ) from exc


def _raise(_manager: Any, _entry_point: Any, exc: BaseException) -> None:
    raise exc


def _get_both(source: Source, question: Question, now: int) -> _Asked:
    """Both metrics, each checked for being there, in time and in step.

    :raises NoData: if one of them is not
    """
    cpu_metric, steal_metric = source.metrics()
    answers = []
    for metric in (cpu_metric, steal_metric):
        answer = _guarded(source, source.get, metric, question)
        _check_granularity(source, metric, question, answer)
        if not any(answer.values.values()):
            raise _nothing(source, metric, question, answer, now)
        answers.append(answer)
    return _Asked(source, cpu_metric, steal_metric, *answers)


def _guarded(source: Source, ask: Callable[..., _T], *told: Any) -> _T:
    """An answer; a source that breaks in another way could not look either.

    :raises ServiceError: for whatever a source of others raises
    """
    try:
        return ask(*told)
    except errors.TierError:
        raise
    except Exception as exc:
        LOG.exception("The datasource %s failed", source.name)
        raise errors.ServiceError(
            f"it failed: {exc!r}",
            where=f"datasource {source.name}",
            cure="See the log, and tell who has written it",
        ) from exc


def _check_granularity(
    source: Source, metric: Metric, question: Question, answer: Answer
) -> None:
    there, wanted = answer.granularity_seconds, question.window_seconds
    if there is not None and there != wanted:
        raise NoData(
            f"it has points every {there} s, windows are {wanted} s long",
            where=f"{source.name} metric {metric.name}",
            cure=f"Set the audit parameter window_seconds to {there}, or give "
            "the metric an archive policy with that granularity",
        )
    if metric.cumulative and answer.reach_seconds > wanted:
        raise NoData(
            f"it is polled every {answer.reach_seconds} s, windows are "
            f"{wanted} s long",
            where=f"{source.name} metric {metric.name}",
            cure="Set the audit parameter window_seconds to the polling "
            "interval or more, or poll more often and say so in "
            f"[{telemetry_conf.GROUP}] polling_interval_seconds",
        )


def _nothing(
    source: Source,
    metric: Metric,
    question: Question,
    answer: Answer,
    now: int,
) -> NoData:
    """Why a metric has no values at all: stale, refused, or not there."""
    where = f"{source.name} metric {metric.name}"
    count = len(question.instances)
    older = Answer()
    if len(answer.absent) < count:
        older = source.get(metric, _day_around(question))
    if older.newest is not None and older.newest >= question.end:
        return NoData(
            f"its points begin at {_time(older.newest)}, windows end at "
            f"{_time(question.end)}",
            where=where,
            cure="Wait for some windows, or compare the clocks of the "
            "compute hosts with the decision engine's",
        )
    if older.newest is not None:
        age = (now - older.newest) // 60
        return NoData(
            f"stale: its newest point is of {_time(older.newest)}, {age} "
            "minutes ago",
            where=where,
            cure="Check that the agents run on the compute hosts and that "
            f"{source.name} takes in what they send",
        )
    why = sorted(set(answer.absent.values()))
    told = f" ({'; '.join(why)})" if why else ""
    if _guarded(source, source.offers, metric):
        return NoData(
            f"none of {count} instances has points{told}, others have",
            where=where,
            cure="Check what polls these instances, the metric's archive "
            "policy or recording rules, and that Watcher's user may read "
            "every project's metrics",
        )
    published = (
        "have it published: OpenStack has no steal metric of its own, this "
        "distribution has a pollster"
        if metric.role == STEAL
        else "check that Ceilometer publishes it"
    )
    return NoData(
        f"no instance has it{told}",
        where=where,
        cure=f"Name the metric in [{telemetry_conf.GROUP}] "
        f"{metric.role}_metric, or {published}; a user who may not read "
        "other projects' metrics sees none either",
    )


def _day_around(question: Question) -> Question:
    """The same for some instances, a day back, and an hour on.

    A clock that is ahead shows in points from the future.
    """
    length = question.window_seconds
    return dataclasses.replace(
        question,
        instances=question.instances[:_SAMPLE],
        begin=question.end - _LOOKING_BACK_SECONDS // length * length,
        end=question.end + max(1, _LOOKING_AHEAD_SECONDS // length) * length,
    )


def _check_units(asked: _Asked, instances: Sequence[model.Instance]) -> None:
    """Refuse units that the values of all instances speak against."""
    for doubt in vetting.doubts(
        instances,
        _measured(asked.cpu_metric, asked.cpu),
        _measured(asked.steal_metric, asked.steal),
    ):
        metric = asked.cpu_metric if doubt.role == CPU else asked.steal_metric
        raise errors.ConfigurationError(
            f"the unit {metric.unit} of {metric.name} is implausible: "
            f"{doubt.text}",
            where=f"[{telemetry_conf.GROUP}] {doubt.role}_unit",
            cure=f"Set it to {' or '.join(doubt.units)}"
            if doubt.units
            else f"Check what {metric.name} in {asked.source.name} counts",
        )


def _windows(
    question: Question, asked: _Asked, wanted: int
) -> tuple[tuple[int, ...], list[model.Finding]]:
    """The newest run of windows whose last one is not still empty.

    Samples that arrive later than expected leave the newest window empty,
    or filled for few: fewer than half of those that have any value.
    """
    windows = question.windows
    have = {
        uuid: set(there) & asked.steal.values.get(uuid, {}).keys()
        for uuid, there in asked.cpu.values.items()
    }
    some = sum(1 for there in have.values() if there)
    for late in range(_LATE_WINDOWS + 1):
        newest = windows[-1 - late]
        if 2 * sum(1 for there in have.values() if newest in there) >= some:
            break
    else:
        late = 0
    end = len(windows) - late
    chosen = windows[end - wanted : end]
    if not late:
        return chosen, []
    return chosen, [
        model.Finding(
            kind="telemetry_late",
            subject=asked.source.name,
            text=f"the window from {_time(windows[-late])} on is not filled "
            f"yet; looked at those up to then. Raise "
            f"[{telemetry_conf.GROUP}] lag_seconds if samples take so long",
        )
    ]


def _rejections(telemetry: model.Telemetry) -> Iterator[model.Finding]:
    """One finding on all readings that were not fit."""
    rejected = telemetry.rejected
    if not rejected:
        return
    fit = sum(1 for row in telemetry.readings.values() for one in row if one)
    there = fit + sum(rejected.values())
    text = f"{there - fit} of {there} readings are not fit: " + ", ".join(
        f"{count} {why}" for why, count in rejected.items()
    )
    if rejected.get(vetting.TOO_MUCH, 0) > _MANY * there:
        text += (
            f". Check [{telemetry_conf.GROUP}] polling_interval_seconds and "
            "cpu_includes_wait"
        )
    yield model.Finding(
        kind="telemetry_rejected", subject=telemetry.source, text=text
    )


def _summary(telemetry: model.Telemetry, asked: _Asked, instances: int) -> str:
    complete = sum(1 for row in telemetry.readings.values() if all(row))
    return (
        f"{asked.source.name}: {asked.cpu_metric.name} "
        f"({asked.cpu_metric.unit}) and {asked.steal_metric.name} "
        f"({asked.steal_metric.unit}), {len(telemetry.windows)} windows of "
        f"{telemetry.window_seconds} s up to {_time(telemetry.ends_at)}, "
        f"complete for {complete} of {instances} instances"
    )


def _measured(metric: Metric, answer: Answer) -> vetting.Measured:
    return vetting.Measured(
        unit=metric.unit,
        values=answer.values,
        reach_seconds=answer.reach_seconds if metric.cumulative else 0,
    )


def _has(
    answer: Answer, instance: model.Instance, windows: Sequence[int]
) -> bool:
    there = answer.values.get(instance.uuid, {})
    return any(window in there for window in windows)


def _reasons(asked: _Asked, lacking: Sequence[model.Instance]) -> str:
    """What the source says about those it has nothing of."""
    found = sorted(
        {
            f"{metric.name}: {answer.absent[i.uuid]}"
            for metric, answer in asked.both
            for i in lacking
            if i.uuid in answer.absent
        }
    )
    return f" ({'; '.join(found)})" if found else ""


def _time(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC")
