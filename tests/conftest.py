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

"""Settings for all tests: how much hypothesis looks for."""

import os

import hypothesis

# Watcher's modules patch the interpreter with eventlet when they are loaded;
# a test that serves HTTP from a thread would wait for ever.
os.environ.setdefault("OS_WATCHER_DISABLE_EVENTLET_PATCHING", "true")

# The same examples on every run of the checks; fresh ones on a desk.
hypothesis.settings.register_profile(
    "ci", max_examples=50, deadline=None, derandomize=True, database=None
)
hypothesis.settings.register_profile("desk", max_examples=50, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")
