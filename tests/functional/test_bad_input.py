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

"""What an operator gets for wrong input and broken surroundings.

Ill-typed parameters are refused when the audit is created; what only the
cloud can tell fails the audit, with the reason in the log and in its status
message, and nothing is executed.
"""

from importlib import metadata
import re
from typing import Any

import pytest

from tests.cloud import AggregateSpec
from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Audit
from tests.functional.watcher_api import Operator

OVER_QUOTA = specs.three_tiers(
    instance("mover", "gold.4", "host-1"),
    aggregates=(AggregateSpec(name="nobody"),),
    events=(specs.inventory("host-1", "gold", total=2),),
)
STATUS_MESSAGE_LENGTH = 255
WATCHER = metadata.version("python-watcher").partition(".")[0]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        pytest.param({"quota": {}}, ["quota"], id="unknown"),
        pytest.param(
            {"enforce_quota": "yes"}, ["yes", "boolean"], id="no-boolean"
        ),
        pytest.param(
            {"max_migrations": "many"}, ["many", "integer"], id="no-integer"
        ),
        pytest.param({"max_migrations": -1}, ["-1", "minimum"], id="negative"),
        pytest.param(
            {"weigher_multiplier": -0.5}, ["-0.5", "minimum"], id="below-0"
        ),
        pytest.param({"quotas": {"gold": -4}}, ["-4"], id="negative-quota"),
        pytest.param({"quotas": {"gold": "some"}}, ["some"], id="no-quota"),
        pytest.param({"quotas": {"gold": 1.5}}, ["1.5"], id="half-a-unit"),
        pytest.param({"quotas": [4]}, ["[4]", "object"], id="no-map"),
        pytest.param(
            {"quotas_by_host": {"host-1": 4}}, ["object"], id="no-inner-map"
        ),
        pytest.param(
            {"drain_hosts": "host-1"}, ["host-1", "array"], id="no-list"
        ),
        pytest.param({"planner": "fast"}, ["fast"], id="no-such-planner"),
    ],
)
def test_wrong_parameters_are_refused_when_the_audit_is_created(
    load: Load,
    operator: Operator,
    parameters: dict[str, Any],
    words: list[str],
) -> None:
    """HTTP 400, a message that names the value, and no audit.

    Watcher 14 answers 500 to what its JSON schema refuses.
    """
    load(OVER_QUOTA, shared=True)
    before = operator.get("/v1/audits")["audits"]

    answer = operator.ask_for_audit(parameters)

    assert answer.status_code in ((400, 500) if WATCHER == "14" else (400,))
    for word in words:
        assert word in answer.text
    assert operator.get("/v1/audits")["audits"] == before


def check_failure(audit: Audit, truth: Truth, *words: str) -> str:
    """The audit failed, said why in both places, and left all as it was.

    :returns: the line of the log, as the strategy worded it
    """
    assert audit.state == "FAILED"
    assert audit.plans == ()
    assert truth.locations() == {"mover": "host-1"}
    (line,) = audit.said("The audit could not look", level="ERROR")
    # oslo.log adds the exception that is being handled to the line.
    line = line.partition(": watcher_cputier.errors.")[0]
    for word in words:
        assert word in line
    told = line.partition(": ")[2]
    shown = audit.status_message
    if shown is not None:
        assert 0 < len(shown) <= STATUS_MESSAGE_LENGTH
        assert shown == told or (
            shown.endswith("...") and told.startswith(shown[:-3])
        )
    return line


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        pytest.param(
            {"quotas": {"platinum": 4}},
            ["unknown tier 'platinum'", "quotas", "gold", "silver", "bronze"],
            id="tier-in-quotas",
        ),
        pytest.param(
            {"quotas_by_host": {"host-1": {"copper": 4}}},
            ["unknown tier 'copper'", "quotas_by_host", "host-1"],
            id="tier-in-quotas-by-host",
        ),
        pytest.param(
            {"quotas_by_host": {"host-9": {"gold": 4}}},
            ["unknown host 'host-9'", "quotas_by_host"],
            id="host-in-quotas-by-host",
        ),
        pytest.param(
            {"drain_hosts": ["host-1", "host-9"]},
            ["unknown host 'host-9'", "drain_hosts"],
            id="host-in-drain-hosts",
        ),
    ],
)
def test_unknown_tiers_and_hosts_fail_the_audit_by_name(
    load: Load,
    operator: Operator,
    truth: Truth,
    parameters: dict[str, Any],
    words: list[str],
) -> None:
    """Only the cloud tells that a tier or host does not exist."""
    load(OVER_QUOTA, shared=True)

    check_failure(operator.audit(**parameters), truth, *words)


@pytest.mark.parametrize("service", ["placement", "compute"])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 503}, id="refusing"),
        pytest.param({"drop": True}, id="down"),
        pytest.param(
            {"status": 200, "body": "<html>"}, id="something-else-listens"
        ),
    ],
)
def test_a_service_that_does_not_answer_fails_the_audit(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    service: str,
    fault: dict[str, Any],
) -> None:
    """R79: the audit says that it could not look, and where.

    One clear message: the service is named once, not once a request.
    """
    load(OVER_QUOTA, shared=True)
    cloud.inject(service, times=None, **fault)

    audit = operator.audit()

    cloud.clear_faults()
    name = {"placement": "Placement", "compute": "Nova"}[service]
    line = check_failure(audit, truth, name)
    assert len(re.findall(rf"\b{name} (?:GET|version)", line)) <= 1


@pytest.mark.parametrize(
    ("service", "path"),
    [("Placement", "/resource_providers"), ("Nova", "/os-migrations")],
)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param({"status": 500}, ["500"], id="error"),
        pytest.param({"drop": True}, ["unreachable"], id="lost"),
        pytest.param({"status": 200, "body": "<html>"}, ["JSON"], id="html"),
    ],
)
def test_a_request_that_fails_for_good_fails_the_audit(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    service: str,
    path: str,
    fault: dict[str, Any],
    words: list[str],
) -> None:
    """R79: the service answers, but not this question; it is named."""
    load(OVER_QUOTA, shared=True)
    kind = {"Placement": "placement", "Nova": "compute"}[service]
    cloud.inject(kind, path_regex=f"{path}$", times=None, **fault)

    audit = operator.audit()

    cloud.clear_faults()
    check_failure(audit, truth, service, path, *words)


def test_a_placement_that_falters_once_does_not_fail_the_audit(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """A refusal that passes is tried again."""
    load(OVER_QUOTA, shared=True)
    cloud.inject("placement", path_regex="allocations$", status=503, times=1)

    audit = operator.audit()

    assert set(audit.moves) == {"mover"}
    assert 503 in {r.status for r in cloud.requests("placement")}


def test_a_tier_whose_class_is_nowhere_fails_the_audit(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """No host sells Bronze: wrong configuration, or provider.yaml is lost."""
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            hosts=specs.hosts(2, tiers={"gold": 8, "silver": 8}),
            events=(specs.inventory("host-1", "gold", total=2),),
        )
    )

    line = check_failure(
        operator.audit(), truth, "no host has an inventory", specs.BRONZE
    )

    assert specs.GOLD not in line
    # With a quota for that tier the audit goes on.
    assert set(operator.audit(quotas={"bronze": 8}).moves) == {"mover"}


def test_a_scope_without_hosts_fails_the_audit(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """The aggregate of the scope has no member."""
    load(OVER_QUOTA, shared=True)

    audit = operator.audit_in_scope({"host_aggregates": [{"name": "nobody"}]})

    check_failure(audit, truth, "scope")


def test_a_scope_of_which_nothing_is_known_fails_the_audit(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """The tiers' classes are elsewhere: nobody can say that all is well."""
    load(
        specs.three_tiers(
            instance("mover", "plain.1", "host-1"),
            hosts=(specs.host("host-1", tiers={}), specs.host("host-2")),
            aggregates=(AggregateSpec(name="bare", hosts=("host-1",)),),
        )
    )

    audit = operator.audit_in_scope({"host_aggregates": [{"name": "bare"}]})

    check_failure(audit, truth, "Placement", "provider.yaml")
    # With a host that is judged beside it the audit goes on.
    assert operator.audit().moves == {}


def test_an_empty_model_fails_the_audit(
    load: Load, operator: Operator
) -> None:
    """A cloud without a single compute host."""
    load(CloudSpec())

    audit = operator.audit()

    assert audit.state == "FAILED"
    assert audit.plans == ()
    assert audit.said("The audit could not look", "model", level="ERROR")
    assert "model" in audit.reason


def test_missing_permissions_are_named_all_at_once(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R79: Watcher's user has only the reader role.

    Nova and Placement themselves say which of the requests they refuse to
    such a user; one error names the policy of each.
    """
    policies = {
        ("compute", "/os-hypervisors/detail"): "os-hypervisors:list-detail",
        ("compute", "/os-services"): "os-services:list",
        ("compute", "/servers/detail?all_tenants=1"): (
            "servers:detail:get_all_tenants"
        ),
        ("compute", "/os-aggregates"): "os-aggregates:index",
        ("compute", "/os-server-groups?all_projects=1"): (
            "os-server-groups:index:all_projects"
        ),
        ("compute", "/os-migrations"): "os-migrations:index",
        ("placement", "/resource_providers"): (
            "placement:resource_providers:list"
        ),
    }
    load(OVER_QUOTA, shared=True)
    refused = {
        policy
        for (service, path), policy in policies.items()
        if cloud.adapter(service, user="reader")
        .get(path, raise_exc=False)
        .status_code
        == 403
    }
    assert "placement:resource_providers:list" in refused
    assert len(refused) > 1
    cloud.watcher.configure(user="reader")

    line = check_failure(operator.audit(), truth)

    named = set(re.findall(r"permission (?:os_compute_api:)?(\S+)", line))
    assert named == refused
