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

import logging
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "ext"))

project = "watcher-cputier"
copyright = "OpenStack contributors"
author = "OpenStack contributors"

extensions = [
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "cliff.sphinxext",
    "messages",
    "tables",
]
nitpicky = True
exclude_patterns = ["_build"]
pygments_style = "native"

# The client's own options, which every command has.
autoprogram_cliff_ignored = [
    "--help",
    "--format",
    "--column",
    "--quote",
    "--noindent",
    "--max-width",
    "--fit-width",
    "--print-empty",
    "--sort-column",
    "--sort-ascending",
    "--sort-descending",
    "--prefix",
]

html_theme = "openstackdocs"
html_theme_options = {"display_global_toc_section": True}

openstackdocs_pdf_link = False
openstackdocs_auto_name = False
openstackdocs_auto_version = False

# An unpacked archive has no commit that the pages could name.
logging.getLogger("sphinx.openstackdocstheme.ext").addFilter(
    lambda record: "cannot get gitsha" not in record.getMessage()
)
