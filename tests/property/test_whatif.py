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


"""What edits do to any cloud, and what they leave alone."""

import dataclasses

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests import builders
from tests.property import clouds
from watcher_cputier import constraints
from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import whatif


def supposed(case: clouds.Case, *told: str) -> whatif.Hypothesis | None:
    """The hypothesis; None where nothing of it can be judged."""
    try:
        return whatif.apply(case.cloud, case.params, whatif.parse(told))
    except errors.SnapshotError:
        return None


def judged(found: whatif.Hypothesis) -> diagnosis.Diagnosis:
    return diagnosis.diagnose(
        found.cluster, parameters.Parameters.of(found.parameters)
    )


def allocated(cloud: model.Cluster) -> dict[tuple[str, str], int]:
    return {
        (provider.uuid, name): units
        for host in cloud.hosts
        for provider in host.providers
        for name, units in provider.allocated.items()
        if units
    }


def rebuilt(cloud: model.Cluster) -> model.Cluster:
    """The same cloud with books made anew from its instances."""
    empty = dataclasses.replace(
        cloud,
        instances=(),
        held=model.frozen_map(),
        hosts=tuple(
            dataclasses.replace(
                host,
                providers=tuple(
                    dataclasses.replace(p, allocated=model.frozen_map())
                    for p in host.providers
                ),
            )
            for host in cloud.hosts
        ),
    )
    return builders.moved_in(empty, cloud.instances)


@given(case=clouds.cases())
def test_no_edit_changes_nothing(case: clouds.Case) -> None:
    found = whatif.apply(case.cloud, case.params, ())
    assert found.cluster is case.cloud
    assert dict(found.parameters) == case.params
    assert not found.assumptions


@settings(max_examples=30)
@given(case=clouds.cases(), data=st.data())
def test_a_drain_is_that_of_the_audit_parameter(
    case: clouds.Case, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([h.name for h in case.cloud.hosts]))
    found = supposed(case, f"drain={name}")
    assert found is not None
    params = {
        **case.params,
        "drain_hosts": sorted({*case.drained, name}),
    }
    assert builders.planned(
        found.cluster, **found.parameters
    ) == builders.planned(case.cloud, **params)


@given(case=clouds.cases(), data=st.data())
def test_a_quota_is_what_it_is_set_to_and_nothing_else_changes(
    case: clouds.Case, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([h.name for h in case.cloud.hosts]))
    tier = data.draw(st.sampled_from([t.name for t in case.cloud.tiers]))
    units = data.draw(st.integers(0, 40))
    found = supposed(case, f"quota={name},tier={tier},units={units}")
    assert found is not None
    before = diagnosis.diagnose(
        case.cloud, parameters.Parameters.of(case.params)
    )
    after = judged(found)
    drains = before.drained.keys() ^ after.drained.keys()
    for key, quota in after.quotas.items():
        if key == (name, tier):
            assert quota.units == (0 if name in after.drained else units)
        elif key[0] not in drains:
            assert quota == before.quotas[key]
    assert found.cluster.instances == case.cloud.instances
    assert found.cluster.held == case.cloud.held


@given(case=clouds.cases(), data=st.data())
def test_who_was_on_a_removed_host_is_placed_or_named(
    case: clouds.Case, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([h.name for h in case.cloud.hosts]))
    others = [h for h in case.cloud.hosts if h.name != name and h.in_scope]
    if not others:
        return
    found = supposed(case, f"remove-host={name}")
    if found is None:
        return
    (outcome,) = found.outcomes
    here = {i.uuid for i in case.cloud.instances if i.host == name}
    placed = {p.instance.uuid: p.target for p in outcome.placements}
    unplaced = {r.instance.uuid: r for r in outcome.unplaced}
    assert placed.keys() | unplaced.keys() == here
    assert not placed.keys() & unplaced.keys()
    # Nobody else moved, and those without a host are nowhere.
    assert {i.uuid: i.host for i in found.cluster.instances} == {
        **{i.uuid: i.host for i in case.cloud.instances if i.host != name},
        **placed,
    }
    # The books are right.
    again = rebuilt(found.cluster)
    assert allocated(found.cluster) == allocated(again)
    assert {k: n for k, n in found.cluster.held.items() if n} == {
        k: n for k, n in again.held.items() if n
    }
    # Quotas and capacities hold wherever somebody came: taken out again,
    # each may come again.
    after = judged(found)
    for excess in after.excesses:
        assert excess.host not in placed.values() or (
            case.cloud.held.get((excess.host, excess.tier), 0) == excess.held
        )
    # Who has no host finds none in the end state either.
    books = planner.Books(found.cluster)
    for refusal in unplaced.values():
        if refusal.rejection is not None:
            continue
        for host in found.cluster.hosts:
            assert (
                constraints.reject_target(
                    constraints.Proposal(
                        cluster=found.cluster,
                        diagnosis=after,
                        occupancy=books,
                        instance=refusal.instance,
                        target=host,
                    )
                )
                is not None
            )


@given(case=clouds.cases(), data=st.data())
def test_what_fits_is_what_the_offer_counts(
    case: clouds.Case, data: st.DataObject
) -> None:
    flavors = {i.flavor.name: i.flavor for i in case.cloud.instances}
    flavor = flavors[data.draw(st.sampled_from(sorted(flavors)))]
    number = data.draw(st.integers(1, 12))
    verdict = diagnosis.diagnose(
        case.cloud, parameters.Parameters.of(case.params)
    )
    count = offer.fit(case.cloud, verdict, flavor).count
    found = whatif.apply(
        case.cloud,
        case.params,
        whatif.parse([f"add-instances={number},flavor={flavor.name}"]),
        flavors=[flavor],
    )
    (outcome,) = found.outcomes
    assert len(outcome.placements) == min(number, count)
    assert len(outcome.placements) + len(outcome.unplaced) == number
    # Nobody is over a quota that was not.
    over = {(e.host, e.tier): e.units for e in verdict.excesses}
    assert {(e.host, e.tier): e.units for e in judged(found).excesses} == over


@settings(max_examples=30)
@given(case=clouds.cases(), data=st.data())
def test_the_order_in_which_a_cloud_is_listed_is_no_matter(
    case: clouds.Case, data: st.DataObject
) -> None:
    """L4, for hypotheses."""
    name = data.draw(st.sampled_from([h.name for h in case.cloud.hosts]))
    told = (f"add-host=new,like={name}", f"remove-host={name}")
    shuffled = dataclasses.replace(
        case,
        cloud=dataclasses.replace(
            case.cloud,
            hosts=tuple(data.draw(st.permutations(case.cloud.hosts))),
            instances=tuple(data.draw(st.permutations(case.cloud.instances))),
        ),
    )
    found, again = supposed(case, *told), supposed(shuffled, *told)
    assert (found is None) == (again is None)
    if found is None or again is None:
        return
    assert found.outcomes == again.outcomes
    assert found.assumptions == again.assumptions
    assert found.cluster.instances == again.cluster.instances
