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

"""The demo's story, told on a real cloud and checked as it goes.

Claims are checked against what Placement, Nova and Watcher say themselves,
through their own APIs, not against the picture that the strategy made. The
tables are drawn from that picture, as ``report`` draws it for operators.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from typing import Any

from oslo_config import cfg

from demo import terminal
from tests import cloud as embedded
from tests.cloud import kernel
from tests.cloud import loads
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import report
from watcher_cputier import schedule
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud as cloud_source
from watcher_cputier.datasources import compute_model

_GOAL = "continuous_slo_compliance"
_STRATEGY = "domain_capacity_enforcement"
_TEMPLATE = "cpu-tiers"
_OVER, _DRAINED, _DISABLED = "rack-01", "rack-06", "rack-05"
_DEADLINE_SECONDS = 120
# rack-01 has to lose 6 Gold units (4 + 2), rack-06 loses all four instances,
# and one more makes room for the largest of them.
_FEWEST = 7
_LARGEST = "lake"


_STARVED = "render"
_BUSY = dict.fromkeys(
    ["render", "shop", "search", "batch", "bank", "index", "build", "forum"],
    1.0,
)
# Of 8 CPUs; the simulated scheduler works in slices of time, as a real one.
_TOLERANCE_CPUS = 0.4
_HERE = pathlib.Path(__file__).resolve().parent


class CommandError(RuntimeError):
    """A command of the story failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Step:
    """A migration of the plan in its place.

    :param needs: names of those that have to succeed before
    :param after: names of those that have to be over before
    :param start: expected, in seconds from the plan's
    """

    name: str
    units: str
    source: str
    target: str
    makes_room_for: str
    needs: tuple[str, ...]
    after: tuple[str, ...]
    start: float
    seconds: float

    @property
    def end(self) -> float:
        """The expected end."""
        return self.start + self.seconds

    @property
    def bar(self) -> str:
        """Its time, drawn."""
        return " " * round(self.start) + "\u2501" * round(self.seconds)

    @property
    def waits_for(self) -> str:
        """Whom it waits for, in words."""
        told = [f"the room of {name}" for name in sorted(self.needs)]
        return ", ".join([*told, *sorted(self.after)])


class Story:
    """One run of the demo."""

    def __init__(
        self, cloud: embedded.EmbeddedCloud, screen: terminal.Screen
    ) -> None:
        self._cloud = cloud
        self._screen = screen
        self._broken: list[str] = []

    def tell(self) -> bool:
        """Tell the whole story; True if every claim held."""
        self._drift()
        self._see("Before the audit: units held / quota")
        self._claim(
            f"Placement counts 14 Gold units on {_OVER}, where 8 are sold",
            self._gold(_OVER) == (14, 8),
        )
        moved = self._audit_and_cure()
        self._see("After the plan: units held / quota")
        self._check_cure(moved)
        self._audit_again()
        self._starve()
        return self._conclude()

    def _drift(self) -> None:
        screen = self._screen
        screen.title("Drift: what happens to a cloud after its scheduler")
        screen.say(
            f"{_OVER}: its provider.yaml is lowered from 16 to 8 Gold, and "
            "nova-compute restarts."
        )
        self._cloud.apply("lower gold on rack-01")
        screen.say(f"{_DRAINED}: all that it sells is reserved, to drain it.")
        root = self._cloud.provider_uuid(_DRAINED)
        classes = " ".join(
            f"--resource {model.default_class(tier)}:reserved=16"
            for tier in tiers_conf.BUILT_IN
        )
        self._openstack(
            f"resource provider inventory set --amend {root} {classes}",
            quiet=True,
        )

    def _audit_and_cure(self) -> dict[str, str]:
        """Audit, show the plan, run it; {instance: planned target}."""
        self._screen.title("The audit, as an operator runs it")
        self._make_template()
        plan = self._audit()
        steps = self._steps(plan)
        self._show_plan(steps)
        makers = {s.name for s in steps if s.makes_room_for == _LARGEST}
        (largest,) = [s for s in steps if s.name == _LARGEST]
        self._claim(
            f"no host has room for {_LARGEST}, one migration makes it, and "
            f"{_LARGEST} waits until that one has succeeded",
            len(makers) == 1 and set(largest.needs) == makers,
        )
        indicators = self._indicators(plan)
        self._claim(
            f"the plan has {_FEWEST} migrations, and "
            f"{indicators['migrations_lower_bound']:.0f} is the proven "
            "minimum",
            len(steps) == _FEWEST == indicators["migrations_lower_bound"],
        )
        targets = {step.name: step.target for step in steps}
        self._claim(
            "nothing goes to the disabled, the drained or the over-full host",
            not {_OVER, _DRAINED, _DISABLED} & set(targets.values()),
        )
        self._screen.title("The plan is executed by Watcher's applier")
        self._openstack(f"optimize actionplan start {plan}", quiet=True)
        state = self._wait("actionplan", plan)
        states = sorted({a["State"] for a in self._action_rows(plan)})
        self._claim(
            f"the action plan {state}, its actions {', '.join(states)}",
            state == "SUCCEEDED" and states == ["SUCCEEDED"],
        )
        return targets

    def _make_template(self) -> None:
        self._openstack(
            f"optimize audittemplate create {_TEMPLATE} {_GOAL} "
            f"--strategy {_STRATEGY} -f value -c UUID"
        )

    def _show_plan(self, steps: list[_Step]) -> None:
        self._screen.table(
            "The plan and its schedule: one character is one second",
            [
                ["instance", "units", "from", "to", "when", "waits for"],
                *(
                    [
                        step.name,
                        step.units,
                        step.source,
                        step.target,
                        step.bar,
                        step.waits_for,
                    ]
                    for step in steps
                ),
            ],
        )
        self._screen.say(
            "Two at a time, one from and one to each host. Who waits for the "
            "room of another needs its success;"
        )
        self._screen.say("all others only wait for their turn.")
        self._screen.say("Why, from the decision engine's log:")
        for line in self._told:
            self._screen.say("  " + line.partition("; rack-")[0])

    def _check_cure(self, planned: dict[str, str]) -> None:
        where = self._cloud.locations()
        declared = {
            name: instance.host
            for instance in self._cloud.spec.instances
            for name in instance.names
        }
        self._claim(
            "Nova has every migrated instance where the plan put it, and all "
            "others where they were",
            where == {**declared, **planned},
        )
        self._claim(
            "Placement has every host within the capacity of each class",
            not self._over_capacity(),
        )

    def _audit_again(self) -> None:
        self._screen.title("The next audit")
        plan = self._audit()
        for line in self._told:
            self._screen.say("  " + line)
        indicators = self._indicators(plan)
        self._claim(
            "the second plan is empty and no unit is over quota",
            not self._action_rows(plan)
            and indicators["excess_units_before"] == 0,
        )

    def _starve(self) -> None:
        """Every quota is kept, and yet a share does not arrive."""
        screen, cloud = self._screen, self._cloud
        screen.title("Starvation: quotas are kept, a share does not arrive")
        cloud.load(embedded.CloudSpec.from_yaml(_HERE / "starvation.yaml"))
        screen.say(
            "Four other hosts, all within their quotas. On rack-11 and "
            "rack-12 everything is busy, on"
        )
        screen.say(
            "rack-13 everything is sold and idle. The guests' loads run in a "
            "simulation of the kernel's"
        )
        screen.say(
            "scheduler; a real Gnocchi has what Ceilometer would have told "
            "it: CPU time and steal."
        )
        cloud.gnocchi.start()
        try:
            self._relieve()
        finally:
            cloud.gnocchi.leave()

    def _relieve(self) -> None:
        screen = self._screen
        before = loads.tell(self._cloud, _BUSY)
        self._see("Before the audit: units held / quota")
        self._make_template()
        plan = self._audit()
        screen.say("From the decision engine's log:")
        for line in self._told:
            screen.say("  " + line.partition("; rack-")[0])
        steps = self._steps(plan)
        self._claim(
            f"{_STARVED} alone moves: the fair contention on rack-12 and the "
            "idle rack-13 are left alone",
            [step.name for step in steps] == [_STARVED],
        )
        indicators = self._indicators(plan)
        self._claim(
            "one instance is starved, and none is expected to be after the "
            "plan",
            indicators["instances_starved_before"] == 1
            and indicators["instances_starved_after"] == 0,
        )
        self._openstack(f"optimize actionplan start {plan}", quiet=True)
        state = self._wait("actionplan", plan)
        target = {step.name: step.target for step in steps}[_STARVED]
        where = self._cloud.locations()
        self._claim(
            f"the action plan {state}, and Nova has {_STARVED} on {target}",
            state == "SUCCEEDED" and where[_STARVED] == target,
        )
        after = loads.tell(self._cloud, _BUSY, placed=where)
        had, has = (_cpus(told[_STARVED]) for told in (before, after))
        predicted = self._predicted(plan)
        self._claim(
            f"{_STARVED} had {had:.1f} CPUs of the 8 that it wants and has "
            f"{has:.1f} now; {predicted:.1f} were predicted",
            had < 1.5 < has and abs(has - predicted) < _TOLERANCE_CPUS,
        )

    def _predicted(self, plan: str) -> float:
        """CPUs that the starved instance is predicted to get, by the log."""
        told = next(
            line
            for line in self._told
            if line.startswith("Predicted by the entitlements: " + _STARVED)
        )
        per_vcpu = re.search(r"gets ([0-9.]+) CPUs per vCPU", told)
        if per_vcpu is None:
            raise CommandError(f"no prediction in {told!r} of plan {plan}")
        return 8 * float(per_vcpu[1])

    def _conclude(self) -> bool:
        if self._broken:
            self._screen.error(f"{len(self._broken)} claims did not hold.")
            return False
        self._screen.say("Every claim above was checked, and holds.")
        return True

    # Watcher, through its command line.

    def _audit(self) -> str:
        """Create an audit and wait for it; its action plan's uuid."""
        mark = self._cloud.watcher.log_mark()
        audit = self._openstack(
            f"optimize audit create -a {_TEMPLATE} -f value -c UUID"
        ).strip()
        state = self._wait("audit", audit)
        self._told = _own_lines(self._cloud.watcher.log(mark))
        self._claim(f"the audit {state}", state == "SUCCEEDED")
        rows = json.loads(
            self._openstack(
                f"optimize actionplan list --audit {audit} -f json", quiet=True
            )
        )
        return str(rows[0]["UUID"])

    def _action_rows(self, plan: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            self._openstack(
                f"optimize action list --action-plan {plan} -f json",
                quiet=True,
            )
        )
        return rows

    def _steps(self, plan: str) -> list[_Step]:
        """A plan's migrations, by their expected start."""
        watcher = self._cloud.adapter("infra-optim")
        listed = watcher.get(
            "/actions/detail", params={"action_plan_uuid": plan}
        ).json()["actions"]
        actions = {action["uuid"]: action for action in listed}
        steps: dict[str, _Step] = {}
        while len(steps) < len(actions):
            # Parents before children.
            for uuid in actions.keys() - steps.keys():
                if steps.keys() >= set(actions[uuid]["parents"]):
                    steps[uuid] = self._step(actions[uuid], steps)
        return sorted(steps.values(), key=lambda s: (s.start, s.name))

    def _step(self, action: dict[str, Any], before: dict[str, _Step]) -> _Step:
        told = action["input_parameters"]
        instances = self._seen.instance_by_uuid
        awaited = instances.get(told["expects"]["awaited"])
        parents = {uuid: before[uuid] for uuid in action["parents"]}
        return _Step(
            name=told["resource_name"],
            units=f"{told['units']} {told['tier']}",
            source=told["source_node"],
            target=told["destination_node"],
            makes_room_for="" if awaited is None else awaited.name,
            needs=tuple(before[uuid].name for uuid in told["needs"]),
            after=tuple(
                one.name
                for uuid, one in parents.items()
                if uuid not in told["needs"]
            ),
            start=max((one.end for one in parents.values()), default=0.0),
            seconds=schedule.expected_seconds(
                instances[told["expects"]["instance"]]
            ),
        )

    def _indicators(self, plan: str) -> dict[str, float]:
        watcher = self._cloud.adapter("infra-optim")
        shown = watcher.get(f"/action_plans/{plan}").json()
        return {i["name"]: i["value"] for i in shown["efficacy_indicators"]}

    def _wait(self, kind: str, uuid: str) -> str:
        """Wait until an audit or action plan has ended; its state."""
        shown = self._screen.progress
        shown(f"waiting for the {kind}")
        return _poll(
            lambda: str(
                self._cloud.adapter("infra-optim")
                .get(f"/{_COLLECTIONS[kind]}/{uuid}")
                .json()["state"]
            ),
            f"{kind} {uuid}",
        )

    def _openstack(self, command: str, *, quiet: bool = False) -> str:
        """Run an ``openstack`` command, printed as it is run."""
        self._screen.command(f"openstack {command}")
        client = pathlib.Path(sys.executable).parent / "openstack"
        done = subprocess.run(
            [str(client), *shlex.split(command)],
            env={**os.environ, **self._cloud.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandError(
                f"openstack {command}: {done.stderr.strip()[-800:]}"
            )
        if not quiet:
            self._screen.output(done.stdout)
        return done.stdout

    # The truth, from Placement itself.

    def _usage(self, host: str) -> dict[str, tuple[int, int]]:
        """{class: (used, capacity)} of a host's root provider."""
        placement = self._cloud.placement
        base = f"/resource_providers/{self._cloud.provider_uuid(host)}"
        inventories = placement.get(f"{base}/inventories").json()
        usages = placement.get(f"{base}/usages").json()["usages"]
        return {
            name: (
                usages.get(name, 0),
                int((i["total"] - i["reserved"]) * i["allocation_ratio"]),
            )
            for name, i in inventories["inventories"].items()
        }

    def _gold(self, host: str) -> tuple[int, int]:
        return self._usage(host)[model.default_class("gold")]

    def _over_capacity(self) -> list[str]:
        return [
            f"{host.name} {name}"
            for host in self._cloud.spec.hosts
            for name, (used, capacity) in self._usage(host.name).items()
            if used > capacity
        ]

    def _see(self, title: str) -> None:
        """The host x tier table, as the strategy sees the cloud."""
        connected = self._cloud.connection()
        cluster: model.Cluster = cloud_source.Reader(connected).get_cluster(
            self._whole_cloud, tiers_conf.catalogue(cfg.ConfigOpts())
        )
        self._seen = cluster
        verdict = diagnosis.diagnose(cluster, parameters.Parameters.of())
        self._screen.table(title, report.host_rows(cluster, verdict))

    def _whole_cloud(self) -> compute_model.Scope:
        return compute_model.Scope(
            hosts=frozenset(host.uuid for host in self._cloud.spec.hosts),
            instances={},
        )

    def _claim(self, text: str, held: bool) -> None:
        self._screen.claim(text, held)
        if not held:
            self._broken.append(text)


_COLLECTIONS = {"audit": "audits", "actionplan": "action_plans"}
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "SUSPENDED", "SUPERSEDED")


def _poll(state: Callable[[], str], what: str) -> str:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (now := state()) not in _ENDED:
        if time.monotonic() > deadline:
            raise CommandError(
                f"{what} is still {now} after {_DEADLINE_SECONDS} s"
            )
        time.sleep(0.5)
    return now


def _cpus(series: kernel.Series) -> float:
    """CPUs that an instance had on average, by its counters."""
    rows = list(series)
    (begin, first, _), (end, last, _) = rows[0], rows[-1]
    return (last - first) / 1e9 / (end - begin)


def _own_lines(log: str) -> list[str]:
    """What the strategy itself logged, without the log's decoration."""
    marker = "watcher_cputier.strategies"
    return [
        line.partition("] ")[2]
        for line in log.splitlines()
        if marker in line and "] " in line
    ]
