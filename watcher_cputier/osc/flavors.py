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


"""The flavors that a cloud sells, as Nova lists them."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from watcher_cputier import model
from watcher_cputier.datasources import cloud
from watcher_cputier.datasources import nova


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A flavor of the catalogue.

    :param record: what Nova says of it
    """

    id: str
    flavor: model.Flavor
    record: Mapping[str, Any]


def get_flavors(reader: cloud.Reader) -> tuple[Listed, ...]:
    """All flavors, those of single projects included, by name.

    :raises ServiceError: if Nova cannot be asked
    """
    found = []
    for record in reader.nova.service.pages(
        "/flavors/detail",
        "flavors",
        {"is_public": "None", "limit": nova.PAGE},
    ):
        told = dict(record)
        told.setdefault("original_name", told["name"])
        told["ephemeral"] = told.get("OS-FLV-EXT-DATA:ephemeral", 0)
        found.append(
            Listed(id=told["id"], flavor=nova.flavor(told), record=told)
        )
    return tuple(sorted(found, key=lambda one: (one.flavor.name, one.id)))
