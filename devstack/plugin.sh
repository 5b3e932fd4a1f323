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
# it in each phase. Every step can be repeated and then changes nothing; an
# error ends stack.sh with one line that says what and where.
#
# Enable it after Watcher's plugin, and after Ceilometer's where there is one:
# it extends their configuration.

_XTRACE_CPUTIER=$(set +o | grep xtrace)
set +o xtrace

CPUTIER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_CPUTIER_CONFIG=$CPUTIER_PROVIDER_CONFIG_DIR/cputier.yaml
_CPUTIER_CREATED=$CPUTIER_STATE_DIR/created
_CPUTIER_GOAL=continuous_slo_compliance
_CPUTIER_STRATEGY=domain_capacity_enforcement
# Those whose CPU shares the package knows.
_CPUTIER_BUILT_IN="gold silver bronze"
_CPUTIER_DEFINITIONS=gnocchi_resources_cputier.yaml

# What runs here
# --------------

function is_cputier_watcher_here {
    is_service_enabled watcher-api watcher-decision-engine watcher-applier
}

# Where the cloud as a whole is set up: the commands of the package are there,
# and Nova and Watcher answer.
function is_cputier_controller {
    is_cputier_watcher_here && is_service_enabled n-api
}

function is_cputier_steal_sent_to_gnocchi {
    is_service_enabled ceilometer-anotification \
        && is_service_enabled gnocchi-api
}

# Settings
# --------

# The tiers' names, one a line.
function _cputier_tiers {
    tr ',' '\n' <<<"$CPUTIER_TIERS" | tr -d ' ' | sed '/^$/d'
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

# The flavors' sizes, one a line.
function _cputier_sizes {
    tr ',' '\n' <<<"$CPUTIER_FLAVORS" | tr -d ' ' | sed '/^$/d'
}

# VCPU for the sum of the tiers, so that neither runs out before the other.
function _cputier_ratio {
    local sum=0 tier
    for tier in $(_cputier_tiers); do
        sum=$((sum + $(_cputier_units "$tier")))
    done
    awk -v sum="$sum" -v cpus="$CPUTIER_CPUS" 'BEGIN { print sum / cpus }'
}

# _cputier_check_number <variable> <value>
function _cputier_check_number {
    if [[ ! "$2" =~ ^[1-9][0-9]{0,8}$ ]]; then
        die $LINENO "$1=$2: it has to be a whole number above 0"
    fi
}

# _cputier_check_setting <what> <classes>: each CPUTIER_<WHAT>_<NAME> is a
# number, and of a tier that there is.
function _cputier_check_setting {
    local variable
    for variable in $(compgen -v "CPUTIER_$1_" || true); do
        if [[ " $2 " != *" CUSTOM_VCPU_${variable#CPUTIER_"$1"_} "* ]]; then
            die $LINENO "$variable: no tier of that name is in" \
                "CPUTIER_TIERS=$CPUTIER_TIERS"
        fi
        _cputier_check_number "$variable" "${!variable}"
    done
}

# Whatever is wrong is told before anything is done.
function check_cputier_settings {
    local class classes="" shares size tier
    for tier in $(_cputier_tiers); do
        if [[ ! "$tier" =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]]; then
            die $LINENO "CPUTIER_TIERS=$CPUTIER_TIERS: $tier is no name of a" \
                "tier, which has letters, digits, - and _"
        fi
        class=$(_cputier_class "$tier")
        if [[ " $classes " == *" $class "* ]]; then
            die $LINENO "CPUTIER_TIERS=$CPUTIER_TIERS: two tiers have the" \
                "resource class $class"
        fi
        classes+=" $class"
        shares=$(_cputier_setting SHARES "$tier")
        if [[ -z "$shares" && " $_CPUTIER_BUILT_IN " != *" $tier "* ]]; then
            die $LINENO "tier $tier has no CPU shares: set" \
                "CPUTIER_SHARES_$(_cputier_upper "$tier") to those of one vCPU"
        fi
    done
    if [[ -z "$classes" ]]; then
        die $LINENO "CPUTIER_TIERS names no tier"
    fi
    _cputier_check_setting SHARES "$classes"
    _cputier_check_setting UNITS "$classes"
    _cputier_check_number CPUTIER_UNITS "$CPUTIER_UNITS"
    _cputier_check_number CPUTIER_CPUS "$CPUTIER_CPUS"
    for size in $(_cputier_sizes); do
        if [[ ! "$size" =~ ^[^:]+:[1-9][0-9]*:[1-9][0-9]*:[0-9]+$ ]]; then
            die $LINENO "CPUTIER_FLAVORS: $size is not" \
                "<name>:<vcpus>:<MB of memory>:<GB of disk>"
        fi
    done
}

# The cloud
# ---------

# The client, quiet about what it does. A failure ends the run with what it
# had to say last, which is its error.
function _cputier_openstack {
    local said status=0
    said=$(mktemp)
    openstack --os-cloud "$CPUTIER_OS_CLOUD" "$@" 2>"$said" || status=$?
    if [[ $status -ne 0 ]]; then
        die $LINENO "openstack $*: $(sed '/^$/d' "$said" | tail -n 1)"
    fi
    rm -f "$said"
}

# _cputier_lists <name> <command> ...: whether a list command names it.
function _cputier_lists {
    local name=$1 listed
    shift
    listed=$(_cputier_openstack "$@") || exit
    grep -qxF -- "$name" <<<"$listed"
}

# _cputier_remember <kind> <id>: we made it, so we may remove it.
function _cputier_remember {
    mkdir -p "$CPUTIER_STATE_DIR"
    echo "$1 $2" >>"$_CPUTIER_CREATED"
}

# _cputier_created <kind>: the ids of what we made, one a line.
function _cputier_created {
    if [[ -r "$_CPUTIER_CREATED" ]]; then
        sed -n "s/^$1 //p" "$_CPUTIER_CREATED"
    fi
}

# Phases
# ------

function install_cputier {
    if is_cputier_watcher_here; then
        setup_develop "$CPUTIER_DIR"
        # For "openstack resource class".
        pip_install_gr osc-placement
    else
        # The pollster needs nothing of Watcher.
        pip_install --no-deps -e "$CPUTIER_DIR"
    fi
}

# The inventories that nova-compute adds to its resource provider.
function _cputier_inventories {
    local tier units
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
}

# nova-compute is not running yet, and its host unknown: no command could be
# asked for the file.
function configure_cputier_compute {
    sudo install -d -o "$STACK_USER" "$CPUTIER_PROVIDER_CONFIG_DIR"
    _cputier_inventories >"$_CPUTIER_CONFIG"
    # The configuration of nova-compute is made from this one when it starts.
    iniset "$NOVA_CONF" compute provider_config_location \
        "$CPUTIER_PROVIDER_CONFIG_DIR"
    if [[ -z "$(iniget "$NOVA_CONF" DEFAULT cpu_allocation_ratio)" ]]; then
        iniset "$NOVA_CONF" DEFAULT cpu_allocation_ratio "$(_cputier_ratio)"
    fi
}

# The tiers, as Watcher and the commands read them.
function configure_cputier_watcher {
    local conf=$WATCHER_CONF rank=0 shares tier
    iniset "$conf" cputier tiers "$(_cputier_tiers | paste -s -d ,)"
    for tier in $(_cputier_tiers); do
        rank=$((rank + 1))
        shares=$(_cputier_setting SHARES "$tier")
        iniset "$conf" "cputier_tier_$tier" resource_class \
            "$(_cputier_class "$tier")"
        if [[ -n "$shares" ]]; then
            iniset "$conf" "cputier_tier_$tier" cpu_shares "$shares"
        fi
        iniset "$conf" "cputier_tier_$tier" rank "$rank"
    done
    if [[ -n "${CEILOMETER_PIPELINE_INTERVAL:-}" ]]; then
        iniset "$conf" cputier_telemetry polling_interval_seconds \
            "$CEILOMETER_PIPELINE_INTERVAL"
    fi
}

# _cputier_telemetry <argument> ...: tools/telemetry.py, by a Python that has
# the packages of the services.
function _cputier_telemetry {
    local python
    python=$(get_python_exec_prefix)/python3
    if [[ ! -x "$python" ]]; then
        python=python3
    fi
    "$python" "$CPUTIER_DIR/devstack/tools/telemetry.py" "$@" 2>&1
}

function _cputier_edit_telemetry {
    local said
    said=$(_cputier_telemetry "$@") || die $LINENO "$said (the plugin of" \
        "Ceilometer has to be enabled before this one)"
}

function configure_cputier_telemetry {
    local directory=${CEILOMETER_CONF_DIR:-/etc/ceilometer}
    if is_service_enabled ceilometer-acompute; then
        _cputier_edit_telemetry polling "$directory/polling.yaml"
    fi
    if is_cputier_steal_sent_to_gnocchi; then
        cp "$CPUTIER_DIR/etc/ceilometer/$_CPUTIER_DEFINITIONS" "$directory/"
        _cputier_edit_telemetry pipeline "$directory/pipeline.yaml"
    fi
}

function create_cputier_classes {
    local class listed tier
    listed=$(_cputier_openstack resource class list -f value -c name)
    for tier in $(_cputier_tiers); do
        class=$(_cputier_class "$tier")
        if ! grep -qxF "$class" <<<"$listed"; then
            _cputier_openstack resource class set "$class"
        fi
    done
}

function create_cputier_flavors {
    local disk id made name ram result size vcpus
    for size in $(_cputier_sizes); do
        IFS=: read -r name vcpus ram disk <<<"$size"
        # The command leaves alone what is there already, and refuses where
        # that contradicts the tiers.
        made=$(_cputier_openstack tier flavor create "$name" \
            --tier-config "$WATCHER_CONF" --vcpus "$vcpus" --ram "$ram" \
            --disk "$disk" -f value -c ID -c Result)
        while read -r id result; do
            if [[ "$result" == created ]]; then
                _cputier_remember flavor "$id"
            fi
        done <<<"$made"
    done
}

# The policy under which Gnocchi keeps usage and steal. Ceilometer makes it as
# well; whoever is first.
function create_cputier_archive_policy {
    local policy told
    told=$(_cputier_telemetry archive-policy \
        "$CPUTIER_DIR/etc/ceilometer/$_CPUTIER_DEFINITIONS") \
        || die $LINENO "$told"
    mapfile -t policy <<<"$told"
    if ! _cputier_lists "${policy[0]}" \
        metric archive-policy list -f value -c name; then
        _cputier_openstack metric archive-policy create "${policy[@]}" \
            -f value -c name
    fi
}

# The decision engine enters goal and strategy into the database as it starts.
function create_cputier_audit_template {
    local template=$CPUTIER_AUDIT_TEMPLATE made waited=0
    until _cputier_lists "$_CPUTIER_STRATEGY" \
        optimize strategy list -f value -c Name; do
        if ((waited >= ${SERVICE_TIMEOUT:-60})); then
            die $LINENO "Watcher does not know the strategy" \
                "$_CPUTIER_STRATEGY: is watcher-cputier installed beside its" \
                "decision engine?"
        fi
        sleep 2
        waited=$((waited + 2))
    done
    if ! _cputier_lists "$template" \
        optimize audittemplate list -f value -c Name; then
        made=$(_cputier_openstack optimize audittemplate create "$template" \
            "$_CPUTIER_GOAL" --strategy "$_CPUTIER_STRATEGY" \
            -f value -c UUID)
        _cputier_remember audittemplate "$made"
    fi
}

# The names that Nova gives to the hosts of this machine.
function _cputier_hosts {
    local number own
    own=$(iniget "$NOVA_CONF" DEFAULT host)
    if [[ "${VIRT_DRIVER:-}" == fake ]]; then
        for number in $(seq 1 "$NUMBER_FAKE_NOVA_COMPUTE"); do
            echo "${HOSTNAME}$number"
        done
    else
        echo "${own:-$(hostname)}"
    fi
}

# Placement shows what the file says: else nova-compute did not take it.
function verify_cputier_inventories {
    local host hosts=() table waited=0
    for host in $(_cputier_hosts); do
        hosts+=(--host "$host")
    done
    until table=$(openstack --os-cloud "$CPUTIER_OS_CLOUD" \
        tier provider-config verify "$_CPUTIER_CONFIG" "${hosts[@]}" \
        --tier-config "$WATCHER_CONF" 2>&1); do
        if ((waited >= ${SERVICE_TIMEOUT:-60})); then
            echo "$table"
            die $LINENO "Placement does not show what $_CPUTIER_CONFIG says"
        fi
        sleep 2
        waited=$((waited + 2))
    done
}

# What the package's tempest plugin needs to know.
function configure_cputier_tempest {
    local classes="" shares="" told tier
    for tier in $(_cputier_tiers); do
        classes+=",$tier:$(_cputier_class "$tier")"
        told=$(_cputier_setting SHARES "$tier")
        if [[ -n "$told" ]]; then
            shares+=",$tier:$told"
        fi
    done
    iniset "$TEMPEST_CONFIG" cputier resource_classes "${classes#,}"
    if [[ -n "$shares" ]]; then
        iniset "$TEMPEST_CONFIG" cputier cpu_shares "${shares#,}"
    fi
    iniset "$TEMPEST_CONFIG" cputier audit_template "$CPUTIER_AUDIT_TEMPLATE"
}

# Undoing
# -------

# _cputier_delete <kind> <command> ...: all that we made. What cannot be deleted
# is left, and the run goes on: somebody may have deleted it already, or the
# services may be down, and the next stack.sh makes their databases anew.
function _cputier_delete {
    local kind=$1 ids
    shift
    mapfile -t ids < <(_cputier_created "$kind")
    if [[ ${#ids[@]} -eq 0 ]]; then
        return
    fi
    if openstack --os-cloud "$CPUTIER_OS_CLOUD" "$@" "${ids[@]}"; then
        sed -i "/^$kind /d" "$_CPUTIER_CREATED"
    else
        echo "Not every $kind could be deleted"
    fi
}

function delete_cputier_objects {
    local class tier
    _cputier_delete audittemplate optimize audittemplate delete
    _cputier_delete flavor flavor delete
    if [[ -e "$_CPUTIER_CONFIG" ]]; then
        # The host here reports the classes: Placement keeps them.
        return
    fi
    for tier in $(_cputier_tiers); do
        class=$(_cputier_class "$tier")
        openstack --os-cloud "$CPUTIER_OS_CLOUD" \
            resource class delete "$class" \
            || echo "Resource class $class is left"
    done
}

# _cputier_ini_remove <file> <section> <option>: and the section, if nothing
# else is in it.
function _cputier_ini_remove {
    local file=$1 section=$2 option=$3
    if [[ ! -f "$file" ]]; then
        return
    fi
    inidelete "$file" "$section" "$option"
    awk -v header="[$section]" '
        function flush() { if (!ours || lines > 0) printf "%s", held }
        /^\[/ { flush(); held = ""; lines = -1; ours = ($0 == header) }
        { held = held $0 "\n" }
        !/^[ \t]*$/ { lines++ }
        END { flush() }
    ' "$file" >"$file.cputier"
    # Its owner and its mode stay those that they were.
    cat "$file.cputier" >"$file"
    rm -f "$file.cputier"
}

function cleanup_cputier {
    local directory=${CEILOMETER_CONF_DIR:-/etc/ceilometer} option tier
    local conf=${NOVA_CONF:-/etc/nova/nova.conf}
    if [[ -f "$conf" ]] && [[ "$(iniget "$conf" compute \
        provider_config_location)" == "$CPUTIER_PROVIDER_CONFIG_DIR" ]]; then
        _cputier_ini_remove "$conf" compute provider_config_location
        if [[ "$(iniget "$conf" DEFAULT cpu_allocation_ratio)" \
            == "$(_cputier_ratio)" ]]; then
            _cputier_ini_remove "$conf" DEFAULT cpu_allocation_ratio
        fi
    fi
    sudo rm -f "$_CPUTIER_CONFIG"
    if [[ -d "$CPUTIER_PROVIDER_CONFIG_DIR" ]]; then
        # Files of others stay, and the directory with them.
        sudo rmdir --ignore-fail-on-non-empty "$CPUTIER_PROVIDER_CONFIG_DIR"
    fi
    conf=${WATCHER_CONF:-/etc/watcher/watcher.conf}
    _cputier_ini_remove "$conf" cputier tiers
    _cputier_ini_remove "$conf" cputier_telemetry polling_interval_seconds
    for tier in $(_cputier_tiers); do
        for option in resource_class cpu_shares rank; do
            _cputier_ini_remove "$conf" "cputier_tier_$tier" "$option"
        done
    done
    for option in resource_classes cpu_shares audit_template; do
        _cputier_ini_remove "${TEMPEST_CONFIG:-}" cputier "$option"
    done
    # Ceilometer's own clean may have removed them all.
    if [[ -f "$directory/polling.yaml" ]]; then
        _cputier_telemetry polling --undo "$directory/polling.yaml" || true
    fi
    if [[ -f "$directory/pipeline.yaml" ]]; then
        _cputier_telemetry pipeline --undo "$directory/pipeline.yaml" || true
    fi
    rm -f "$directory/$_CPUTIER_DEFINITIONS"
    rm -f "$_CPUTIER_CREATED"
    if [[ -d "$CPUTIER_STATE_DIR" ]]; then
        rmdir --ignore-fail-on-non-empty "$CPUTIER_STATE_DIR"
    fi
}

case "$1:${2:-}" in
stack:pre-install)
    check_cputier_settings
    ;;
stack:install)
    if is_cputier_watcher_here || is_service_enabled ceilometer-acompute; then
        echo_summary "Installing watcher-cputier"
        install_cputier
    fi
    ;;
stack:post-config)
    echo_summary "Configuring watcher-cputier"
    if is_service_enabled n-cpu; then
        configure_cputier_compute
    fi
    if is_cputier_watcher_here; then
        configure_cputier_watcher
    fi
    configure_cputier_telemetry
    ;;
stack:extra)
    if is_cputier_controller; then
        echo_summary "Creating the CPU tiers"
        create_cputier_classes
        create_cputier_flavors
    fi
    if is_service_enabled gnocchi-api; then
        create_cputier_archive_policy
    fi
    ;;
stack:test-config)
    if is_cputier_controller; then
        create_cputier_audit_template
        if is_service_enabled n-cpu; then
            verify_cputier_inventories
        fi
    fi
    if is_service_enabled tempest; then
        configure_cputier_tempest
    fi
    ;;
unstack:*)
    # There is no service of ours to stop. Nova and Watcher still answer.
    if is_cputier_controller; then
        echo_summary "Removing the CPU tiers"
        delete_cputier_objects
    fi
    ;;
clean:*)
    cleanup_cputier
    ;;
esac

$_XTRACE_CPUTIER
