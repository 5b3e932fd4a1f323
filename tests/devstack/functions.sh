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
#
# shellcheck shell=bash

# What DevStack's plugin interface promises to a plugin, as far as ours uses
# it: the same names, arguments and effects, on files below one directory. A
# function of DevStack that is missing here ends the run as an unknown command.

# Output and errors.

function echo_summary {
    echo "summary: $*"
}

# die <line> <text> ...: one line, and the end.
function die {
    local line=$1
    shift
    echo "[ERROR] ${BASH_SOURCE[1]}:$line $*" >&2
    exit 1
}

# Services and plugins.

# Whether one of these services at least is enabled here.
function is_service_enabled {
    local service
    for service in "$@"; do
        case ",$ENABLED_SERVICES," in
        *",$service,"*) return 0 ;;
        esac
    done
    return 1
}

function define_plugin {
    [[ -n "$1" ]]
}

function plugin_requires {
    [[ -n "$1" && -n "$2" ]]
}

# INI files. A file or a section that is not there is made by iniset.

function _ini {
    awk -v what="$1" -v section="[$3]" -v option="$4" -v value="${5:-}" '
        function trim(text) {
            gsub(/^[ \t]+|[ \t]+$/, "", text)
            return text
        }
        function is_option(line) {
            return index(line, "=") \
                && trim(substr(line, 1, index(line, "=") - 1)) == option
        }
        /^\[/ { inside = ($0 == section) }
        {
            ours = inside && is_option($0)
            if (ours && what == "get")
                print trim(substr($0, index($0, "=") + 1))
            if (ours && what == "set")
                print option " = " value
            if (!ours && what != "get")
                print
        }
    ' "$2"
}

function iniget {
    _ini get "$1" "$2" "$3"
}

function inidelete {
    local text
    text=$(_ini delete "$1" "$2" "$3")
    printf '%s\n' "$text" >"$1"
}

function iniset {
    local file=$1 section=$2 option=$3 value=$4 text
    if ! grep -qxF "[$section]" "$file" 2>/dev/null; then
        printf '\n[%s]\n' "$section" >>"$file"
    fi
    if [[ -n "$(_ini get "$file" "$section" "$option")" ]]; then
        text=$(_ini set "$file" "$section" "$option" "$value")
    else
        text=$(awk -v header="[$section]" -v line="$option = $value" '
            { print }
            $0 == header { print line }
        ' "$file")
    fi
    printf '%s\n' "$text" >"$file"
}

# Python packages. The environment of the tests is that of the services: it
# has them already, and each function makes sure of it.

function get_python_exec_prefix {
    dirname "$PYTHON"
}

# setup_develop <directory>: its distribution is installed from there.
function setup_develop {
    "$PYTHON" - "$1" <<'END'
import importlib.metadata
import pathlib
import sys

from setuptools.config import setupcfg

told = setupcfg.read_configuration(pathlib.Path(sys.argv[1], "setup.cfg"))
found = importlib.metadata.distribution(told["metadata"]["name"])
assert found.entry_points.select(group="watcher_strategies")
END
}

# pip_install [option] ... <requirement>
function pip_install {
    local wanted=${!#}
    if [[ -d "$wanted" ]]; then
        setup_develop "$wanted"
    else
        "$PYTHON" -c 'import importlib.metadata, sys
importlib.metadata.distribution(sys.argv[1])' "$wanted"
    fi
}

function pip_install_gr {
    pip_install "$1"
}

# The user that stacks owns everything here.
function sudo {
    "$@"
}
