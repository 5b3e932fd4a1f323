#!/usr/bin/env bash
#
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

# run.sh <localrc> <mode> [phase]: what stack.sh, unstack.sh and clean.sh do
# with the plugin, in the order of DevStack's plugin interface. Of them only
# stack.sh ends at the first command that fails.

mode=$2
phase=${3:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
plugin=$here/../../devstack

if [[ "$mode" == stack ]]; then
    trap 'echo "run.sh failed"; exit 1' ERR
    set -o errexit
fi
# shellcheck source=tests/devstack/functions.sh
source "$here/functions.sh"
# shellcheck source=/dev/null
source "$1"
# shellcheck source=devstack/override-defaults
source "$plugin/override-defaults"
# shellcheck source=devstack/settings
source "$plugin/settings"
# shellcheck source=devstack/plugin.sh
source "$plugin/plugin.sh" "$mode" "$phase"
