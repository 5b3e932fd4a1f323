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

"""Telemetry of an audit: what is read, what is missing, what is given up."""

from collections.abc import Callable, Mapping
from typing import Any

from oslo_config import cfg
import pytest

from tests import builders
from tests import consumption
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.conf import telemetry as telemetry_conf
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import telemetry
from watcher_cputier.strategies import backend
from watcher_cputier.strategies import usage

NOW = 1_000_000
ALONE = {"enforce_quota": False}


class Reader:
    """The reader of the cloud, as far as it has to do with telemetry."""

    def next_deadline(self) -> None:
        return None

    def spend(self, seconds: float) -> None:
        assert seconds >= 0

    def with_more(
        self,
        cluster: model.Cluster,
        more: Callable[[model.Cluster], model.Cluster],
    ) -> model.Cluster:
        return more(cluster)

    def get_actions(
        self, instances: Any, seconds: int
    ) -> tuple[model.Change, ...]:
        return ()


class Source:
    """A datasource that has what it is given, by role.

    :param lacking: how many of the newest windows have no steal
    """

    name = "fake"

    def __init__(self, lacking: int = 0, failure: Exception | None = None):
        self.lacking = lacking
        self.failure = failure

    def metrics(self) -> tuple[telemetry.Metric, telemetry.Metric]:
        return (
            telemetry.Metric(role="cpu", name="cpu", unit="ns"),
            telemetry.Metric(role="steal", name="steal", unit="ns"),
        )

    def offers(self, metric: telemetry.Metric) -> bool:
        return True

    def get(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> telemetry.Answer:
        if self.failure is not None:
            raise self.failure
        windows = question.windows
        if metric.role == "steal":
            windows = windows[: len(windows) - self.lacking]
        return telemetry.Answer(
            values={
                uuid: dict.fromkeys(windows, 1e8)
                for uuid in question.instances
            },
            newest=windows[-1],
        )


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    found = cfg.ConfigOpts()
    telemetry_conf.register(found)
    tiers_conf.register(found)
    found([], default_config_files=[])
    found.set_override("datasource", "fake", telemetry_conf.GROUP)
    return found


@pytest.fixture
def read(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch):
    """``read(source, parameters)``: the cluster with its telemetry."""

    def run(
        source: Source,
        params: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> model.Cluster:
        monkeypatch.setattr(telemetry, "load", lambda *_: source)
        cloud = builders.cluster(
            [consumption.host("a")],
            [consumption.guest("g", "a", **fields)],
            taken_at=NOW,
        )
        return usage.with_telemetry(
            Reader(), cloud, parameters.Parameters.of(params), conf, None
        )

    return run


def test_what_is_there_is_read(read: Any) -> None:
    found = read(Source())
    assert found.findings == ()
    assert found.telemetry.source == "fake"
    assert list(found.telemetry.readings) == ["g"]
    (first, *_) = found.telemetry.readings["g"]
    assert first == model.Reading(usage_cpus=0.1, steal_cpus=0.1)


def test_a_source_of_others_may_break_in_its_own_way(read: Any) -> None:
    """L8: quotas are enforced all the same, and the finding says why."""
    found = read(Source(failure=KeyError("boom")))
    assert found.telemetry is None
    (finding,) = found.findings
    assert finding.kind == usage.ABSTAINED
    assert "datasource fake: it failed: KeyError('boom')" in finding.text


@pytest.mark.parametrize(
    "source", [Source(failure=KeyError("boom")), Source(lacking=5)]
)
def test_an_audit_for_nothing_else_fails(read: Any, source: Source) -> None:
    """An audit never reports success when it could not look."""
    with pytest.raises(errors.TierError):
        read(source, ALONE)


def test_nobody_runs_and_nobody_is_starved(read: Any) -> None:
    found = read(Source(failure=KeyError("boom")), ALONE, status="SHUTOFF")
    assert found.findings == ()
    assert dict(found.telemetry.readings) == {}


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "Starvation is not looked for, since"),
        (
            {"quota_mode": "borrow"},
            "Starvation is not looked for and nothing is lent (quota_mode)",
        ),
        (
            {"quota_mode": "borrow", "relieve_starvation": False},
            "Nothing is lent (quota_mode), since",
        ),
    ],
)
def test_what_is_given_up_is_said(
    read: Any, params: dict[str, Any], text: str
) -> None:
    (finding,) = read(Source(failure=KeyError("boom")), params).findings
    assert finding.text.startswith(text)


def test_who_needs_no_telemetry_asks_for_none(read: Any) -> None:
    found = read(
        Source(failure=AssertionError()), {"relieve_starvation": False}
    )
    assert found.telemetry is None
    assert found.findings == ()


@pytest.mark.parametrize(
    ("params", "seconds"),
    [
        ({}, 86400 + 7200),
        ({"cooldown_minutes": 10080}, 86400 + 2 * 604800),
        ({"relieve_starvation": False}, None),
        ({"relieve_starvation": False, "mix_tiers": True}, 86400 + 7200),
    ],
)
def test_history_reaches_back_as_far_as_it_matters(
    params: dict[str, Any], seconds: int | None
) -> None:
    typed = parameters.Parameters.of(params)
    assert usage.history_seconds(typed) == seconds


def test_the_strategys_own_preference_goes_before_the_general_one(
    conf: cfg.ConfigOpts,
) -> None:
    conf.clear_override("datasource", telemetry_conf.GROUP)
    for group, value in (
        ("watcher_datasources", ["gnocchi"]),
        ("watcher_strategies.domain_capacity_enforcement", None),
    ):
        conf.register_opts([cfg.ListOpt("datasources")], group=group)
        conf.set_override("datasources", value, group)
    assert telemetry.preference(conf) == ("gnocchi",)
    conf.set_override(
        "datasources",
        ["prometheus"],
        "watcher_strategies.domain_capacity_enforcement",
    )
    assert telemetry.preference(conf) == ("prometheus",)


def test_the_state_of_a_source_that_is_there(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "load", lambda *_: Source())
    found = backend.Backend(conf, None)
    assert found.NAME == "fake"
    assert found.check_availability() == "available"
    assert found.METRIC_MAP == {"cpu": "cpu", "steal": "steal"}
    assert found.list_metrics() == ["cpu", "steal"]


def test_the_state_of_a_source_whose_options_are_wrong(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    wrong = errors.ConfigurationError("x is no name", where="an option")

    def refuse() -> Any:
        raise wrong

    monkeypatch.setattr(source, "metrics", refuse)
    monkeypatch.setattr(telemetry, "load", lambda *_: source)
    found = backend.Backend(conf, None)
    assert found.check_availability() == f"not available: {wrong}"
    assert found.METRIC_MAP == {"cpu": "cpu", "steal": "steal"}
    assert found.list_metrics() == []


def test_the_state_of_no_source(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> Any:
        raise telemetry.NotDeployed("there is none", where="catalogue")

    monkeypatch.setattr(telemetry, "load", missing)
    found = backend.Backend(conf, None)
    assert found.NAME == "telemetry"
    assert found.check_availability().startswith("not available: catalogue")
    assert found.list_metrics() == []
