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


"""What the DevStack plugin makes of Ceilometer's files is what it reads.

Its own managers read polling.yaml and pipeline.yaml, and its own publisher
for Gnocchi the definitions.
"""

import pathlib
import shutil

from ceilometer.pipeline import sample as sample_pipeline
from ceilometer.polling import manager as polling_manager
from ceilometer.publisher import gnocchi

from tests import ceilometer_agent
from tests.devstack import stack as devstack


def test_ceilometer_reads_what_the_devstack_plugin_writes(
    tmp_path: pathlib.Path,
) -> None:
    """R74: steal is polled once, and goes to Gnocchi with its definition."""
    stack = devstack.Stack(tmp_path, services=devstack.TELEMETRY)
    stack.lay_out()
    assert stack.run("stack", "post-config").returncode == 0
    folder = tmp_path / "read"
    conf = ceilometer_agent.configure(folder)
    for path in stack.ceilometer.iterdir():
        shutil.copy(path, folder)

    polled = polling_manager.PollingManager(conf).sources
    pipelines = sample_pipeline.SamplePipelineManager(conf).pipelines

    assert [one.support_meter("cpu.steal") for one in polled] == [True]
    taking = [
        one for one in pipelines if one.source.support_meter("cpu.steal")
    ]
    (publisher,) = [p for one in taking for p in one.sink.publishers]
    assert isinstance(publisher, gnocchi.GnocchiPublisher)
    defined = {
        name: definition.metrics[name]["archive_policy_name"]
        for definition in publisher.resources_definition
        for name in definition.metrics
    }
    assert defined == {"cpu.steal": "ceilometer-low-rate"}
    # Usage goes where it went, under a policy that keeps its rate too.
    (other,) = [one for one in pipelines if one.source.support_meter("cpu")]
    assert other not in taking
    (publisher,) = other.sink.publishers
    usage = publisher.metric_map["cpu"].metrics["cpu"]
    assert usage["archive_policy_name"] == "ceilometer-low-rate"
