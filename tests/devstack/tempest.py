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


"""The real tempest on the embedded cloud.

What DevStack tells tempest of its cloud is told here of this one: users that
are there already, no networks, one image, and instances that nobody can log
in to.
"""

import configparser
import pathlib
import subprocess
import sys

import yaml

from tests.cloud import keystone
from tests.devstack import stack as devstack

TESTS = "watcher_cputier"


def run(stack: devstack.Stack) -> subprocess.CompletedProcess[str]:
    """Run every test of the package's tempest plugin."""
    workspace = stack.directory / "tempest"
    _tempest(stack, "init", str(workspace), check=True)
    _configure(stack, workspace)
    return _tempest(
        stack, "run", "--regex", TESTS, "--serial", directory=workspace
    )


def _tempest(
    stack: devstack.Stack,
    *words: str,
    directory: pathlib.Path | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    binaries = pathlib.Path(sys.executable).parent
    return subprocess.run(
        [str(binaries / "tempest"), *words],
        env={
            "PATH": f"{binaries}:/usr/bin:/bin",
            "HOME": str(stack.directory),
            "NO_PROXY": "127.0.0.1",
        },
        cwd=directory or stack.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=check,
    )


def _configure(stack: devstack.Stack, workspace: pathlib.Path) -> None:
    """Write tempest.conf: what the plugin wrote, and the cloud."""
    assert stack.cloud is not None
    accounts = workspace / "etc" / "accounts.yaml"
    accounts.write_text(
        yaml.safe_dump(
            [
                {
                    "username": user,
                    "project_name": keystone.USERS[user][0],
                    "password": keystone.PASSWORD,
                    "types": ["admin"] if user == "admin" else [],
                    "roles": list(keystone.USERS[user][1]),
                }
                for user in ("admin", "member")
            ]
        )
    )
    told = configparser.ConfigParser(interpolation=None)
    told.read(workspace / "etc" / "tempest.conf")
    told.read(stack.tempest_conf)
    told.read_dict(
        {
            "auth": {
                "use_dynamic_credentials": "False",
                "test_accounts_file": str(accounts),
            },
            "identity": {
                "auth_version": "v3",
                "uri_v3": stack.cloud.auth_url,
                "region": keystone.REGION,
            },
            "compute": {
                "image_ref": keystone.IMAGE_ID,
                "min_compute_nodes": "2",
                "max_microversion": "latest",
                "build_interval": "1",
            },
            "compute-feature-enabled": {"live_migration": "True"},
            "placement": {"max_microversion": "latest"},
            "service_available": {
                "neutron": "False",
                "cinder": "False",
                "glance": "False",
                "swift": "False",
            },
            "validation": {"run_validation": "False"},
        }
    )
    with (workspace / "etc" / "tempest.conf").open("w") as file:
        told.write(file)
