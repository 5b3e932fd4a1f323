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

# DevStack plugin: installs watcher-cputier next to Watcher and sets up the
# tiers, from the computes' inventories to the audit template. DevStack sources
# it in each phase; every step can be repeated.
#
# Enable it after Watcher's plugin, whose configuration it extends.

_XTRACE_CPUTIER=$(set +o | grep xtrace)
set +o xtrace

CPUTIER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The tiers' names, one a line.
function _cputier_tiers {
    tr ',' '\n' <<<"$CPUTIER_TIERS" | tr -d ' ' | grep .
}

# Upper case, and _ for what a resource class or a variable may not contain.
function _cputier_upper {
    tr '[:lower:]' '[:upper:]' <<<"$1" | tr -c 'A-Z0-9\n' '_'
}

# The resource class of a tier.
function _cputier_class {
    echo "CUSTOM_VCPU_$(_cputier_upper "$1")"
}

# _cputier_setting <what> <tier>: CPUTIER_<WHAT>_<TIER>, or nothing.
function _cputier_setting {
    local name
    name="CPUTIER_$1_$(_cputier_upper "$2")"
    echo "${!name:-}"
}

# The units of a tier that a host offers.
function _cputier_units {
    local units
    units=$(_cputier_setting UNITS "$1")
    echo "${units:-$CPUTIER_UNITS}"
}

# The shares of one vCPU of a tier; without any the tier cannot be set up.
function _cputier_shares {
    local shares
    shares=$(_cputier_setting SHARES "$1")
    if [[ -z "$shares" ]]; then
        die $LINENO "CPUTIER_SHARES_$(_cputier_upper "$1") is not set"
    fi
    echo "$shares"
}

function _cputier_openstack {
    openstack --os-cloud "${CPUTIER_OS_CLOUD:-devstack-admin}" "$@"
}

function install_cputier {
    setup_develop "$CPUTIER_DIR"
    # For "openstack resource class".
    pip_install osc-placement
}

# What nova-compute adds to its resource provider.
function configure_cputier_compute {
    local file tier units
    file=$CPUTIER_PROVIDER_CONFIG_DIR/cputier.yaml
    sudo install -d -o "$STACK_USER" "$CPUTIER_PROVIDER_CONFIG_DIR"
    {
        echo "meta:"
        echo "  schema_version: '1.0'"
        echo "providers:"
        echo "  - identification:"
        # shellcheck disable=SC2016  # Nova replaces it, not the shell
        echo '      uuid: $COMPUTE_NODE'
        echo "    inventories:"
        echo "      additional:"
        for tier in $(_cputier_tiers); do
            units=$(_cputier_units "$tier")
            echo "        - $(_cputier_class "$tier"):"
            echo "            total: $units"
            echo "            reserved: 0"
            echo "            min_unit: 1"
            echo "            max_unit: $units"
            echo "            step_size: 1"
            echo "            allocation_ratio: 1.0"
        done
    } >"$file"
    # The configuration of nova-compute is made from this one when it starts.
    iniset "$NOVA_CONF" compute provider_config_location \
        "$CPUTIER_PROVIDER_CONFIG_DIR"
}

# The tiers, as Watcher's decision engine reads them.
function configure_cputier_watcher {
    local conf rank shares tier
    conf=${WATCHER_CONF:-/etc/watcher/watcher.conf}
    iniset "$conf" cputier tiers "$(_cputier_tiers | paste -s -d ,)"
    rank=0
    for tier in $(_cputier_tiers); do
        rank=$((rank + 1))
        shares=$(_cputier_shares "$tier")
        iniset "$conf" "cputier_tier_$tier" resource_class \
            "$(_cputier_class "$tier")"
        iniset "$conf" "cputier_tier_$tier" cpu_shares "$shares"
        iniset "$conf" "cputier_tier_$tier" rank "$rank"
    done
}

function create_cputier_classes {
    local tier
    for tier in $(_cputier_tiers); do
        _cputier_openstack resource class set "$(_cputier_class "$tier")"
    done
}

function create_cputier_flavors {
    local shares tier vcpus
    vcpus=$CPUTIER_FLAVOR_VCPUS
    for tier in $(_cputier_tiers); do
        shares=$(_cputier_shares "$tier")
        if ! _cputier_openstack flavor show "$tier" >/dev/null 2>&1; then
            _cputier_openstack flavor create "$tier" --vcpus "$vcpus" \
                --ram "$CPUTIER_FLAVOR_RAM" --disk "$CPUTIER_FLAVOR_DISK"
        fi
        _cputier_openstack flavor set "$tier" \
            --property "resources:$(_cputier_class "$tier")=$vcpus" \
            --property "quota:cpu_shares=$((shares * vcpus))"
    done
}

# The decision engine enters goal and strategy into the database as it starts.
function create_cputier_audit_template {
    local goal=continuous_slo_compliance
    local strategy=domain_capacity_enforcement
    local template=$CPUTIER_AUDIT_TEMPLATE
    local waited=0
    until _cputier_openstack optimize strategy show $strategy \
        >/dev/null 2>&1; do
        if ((waited >= ${SERVICE_TIMEOUT:-60})); then
            die $LINENO "Watcher does not know the strategy $strategy"
        fi
        sleep 2
        waited=$((waited + 2))
    done
    if ! _cputier_openstack optimize audittemplate show "$template" \
        >/dev/null 2>&1; then
        _cputier_openstack optimize audittemplate create "$template" $goal \
            --strategy $strategy
    fi
}

function cleanup_cputier {
    sudo rm -f "$CPUTIER_PROVIDER_CONFIG_DIR/cputier.yaml"
}

case "$1:${2:-}" in
stack:install)
    echo_summary "Installing watcher-cputier"
    if is_service_enabled watcher-api watcher-decision-engine \
        watcher-applier; then
        install_cputier
    fi
    ;;
stack:post-config)
    echo_summary "Configuring watcher-cputier"
    if is_service_enabled n-cpu; then
        configure_cputier_compute
    fi
    if is_service_enabled watcher-api watcher-decision-engine \
        watcher-applier; then
        configure_cputier_watcher
    fi
    ;;
stack:extra)
    echo_summary "Creating the CPU tiers"
    if is_service_enabled placement-api && is_service_enabled n-api; then
        create_cputier_classes
        create_cputier_flavors
    fi
    ;;
stack:test-config)
    if is_service_enabled watcher-api; then
        create_cputier_audit_template
    fi
    ;;
unstack:*)
    # There is no service of ours to stop.
    ;;
clean:*)
    cleanup_cputier
    ;;
esac

$_XTRACE_CPUTIER
