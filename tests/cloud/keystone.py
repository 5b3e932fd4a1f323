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

"""A stub of Keystone: tokens with roles, a catalogue, and empty lists.

It accepts the declared users with the password ``password`` and hands out
tokens for any project they ask for. Nova and Placement run in the same
process, so ``Authenticator`` looks tokens up in memory and puts the identity
headers in front of them that keystonemiddleware would; their own policies then
decide by the roles. Watcher validates tokens over HTTP with the real
keystonemiddleware.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import typing
import urllib.parse
import uuid

from tests.cloud import control

PASSWORD = "password"
REGION = "RegionOne"
USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    # name: (home project, roles with the implied ones)
    "admin": ("admin", ("admin", "manager", "member", "reader")),
    "watcher": (
        "service",
        ("admin", "service", "manager", "member", "reader"),
    ),
    "member": ("demo", ("member", "reader")),
    "reader": ("admin", ("reader",)),
}
SERVICES = {
    # type: (name, path of the endpoint)
    "identity": ("keystone", "/v3"),
    "compute": ("nova", "/v2.1"),
    "placement": ("placement", ""),
    "image": ("glance", ""),
    "network": ("neutron", ""),
    "infra-optim": ("watcher", ""),
    "metric": ("gnocchi", ""),
}
# The image that Nova's Glance fixture knows.
IMAGE_ID = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
_LIFETIME = datetime.timedelta(days=1)


def identifier(kind: str, name: str) -> str:
    """Stable ids, the same in every cloud."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, "%s.%s" % (kind, name)).hex


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """Who asks, for which project, with which roles."""

    user: str
    project: str
    roles: tuple[str, ...]
    issued: datetime.datetime

    @property
    def expires(self) -> datetime.datetime:
        return self.issued + _LIFETIME


class Identity:
    """Users, tokens and endpoints."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._projects = {
            p: identifier("project", p) for p, _roles in USERS.values()
        }
        self._ports: dict[str, int] = {}

    def set_endpoint(self, service: str, port: int) -> None:
        self._ports[service] = port

    def remove_endpoint(self, service: str) -> None:
        self._ports.pop(service, None)

    def endpoint(self, service: str) -> str:
        _name, path = SERVICES.get(service, (service, ""))
        return "http://127.0.0.1:%d%s" % (self._ports[service], path)

    def token(self, identifier_: str | None) -> Token | None:
        token = self._tokens.get(identifier_ or "")
        if token is None or token.expires < _now():
            return None
        return token

    def issue(
        self, request: dict[str, typing.Any]
    ) -> tuple[str, Token] | None:
        """A new token, or None if the request names nobody known."""
        auth = request["auth"]
        methods = auth["identity"]["methods"]
        if "token" in methods:
            known = self.token(auth["identity"]["token"]["id"])
            if known is None:
                return None
            name = known.user
        else:
            user = auth["identity"]["password"]["user"]
            name = user.get("name") or next(
                (u for u in USERS if identifier("user", u) == user.get("id")),
                "",
            )
            if name not in USERS or user.get("password") != PASSWORD:
                return None
        home, roles = USERS[name]
        project = self._project(auth.get("scope"), home)
        token = Token(name, project, roles, _now())
        key = uuid.uuid4().hex
        self._tokens[key] = token
        return key, token

    def _project(self, scope: typing.Any, home: str) -> str:
        wanted = scope.get("project", {}) if isinstance(scope, dict) else {}
        if "id" in wanted:
            return next(
                (n for n, i in self._projects.items() if i == wanted["id"]),
                home,
            )
        name = wanted.get("name", home)
        self._projects.setdefault(name, identifier("project", name))
        return str(name)

    def projects(self) -> list[dict[str, typing.Any]]:
        return [
            {
                "id": i,
                "name": n,
                "domain_id": "default",
                "enabled": True,
                "is_domain": False,
                "description": "",
                "tags": [],
                "parent_id": "default",
                "options": {},
                "links": {},
            }
            for n, i in sorted(self._projects.items())
        ]

    def users(self) -> list[dict[str, typing.Any]]:
        return [
            {
                "id": identifier("user", n),
                "name": n,
                "enabled": True,
                "domain_id": "default",
                "options": {},
                "links": {},
                "password_expires_at": None,
            }
            for n in sorted(USERS)
        ]

    def roles(self) -> list[dict[str, typing.Any]]:
        names = {r for _project, roles in USERS.values() for r in roles}
        return [
            {
                "id": identifier("role", n),
                "name": n,
                "domain_id": None,
                "options": {},
                "links": {},
            }
            for n in sorted(names)
        ]

    def catalog(self) -> list[dict[str, typing.Any]]:
        return [
            {
                "id": identifier("service", type_),
                "type": type_,
                "name": SERVICES.get(type_, (type_, ""))[0],
                "endpoints": [
                    {
                        "id": identifier(interface, type_),
                        "interface": interface,
                        "region": REGION,
                        "region_id": REGION,
                        "url": self.endpoint(type_),
                    }
                    for interface in ("public", "internal", "admin")
                ],
            }
            for type_ in self._ports
        ]

    def describe(self, token: Token) -> dict[str, typing.Any]:
        domain = {"id": "default", "name": "Default"}
        return {
            "token": {
                "methods": ["password"],
                "is_domain": False,
                "audit_ids": [identifier("audit", str(id(token)))],
                "user": {
                    "id": identifier("user", token.user),
                    "name": token.user,
                    "domain": domain,
                    "password_expires_at": None,
                },
                "project": {
                    "id": self._projects[token.project],
                    "name": token.project,
                    "domain": domain,
                },
                "roles": [
                    {"id": identifier("role", r), "name": r}
                    for r in token.roles
                ],
                "issued_at": _stamp(token.issued),
                "expires_at": _stamp(token.expires),
                "catalog": self.catalog(),
            }
        }

    def headers(self, token: Token) -> dict[str, str]:
        """What keystonemiddleware passes on to a service."""
        return {
            "HTTP_X_IDENTITY_STATUS": "Confirmed",
            "HTTP_X_USER_ID": identifier("user", token.user),
            "HTTP_X_USER_NAME": token.user,
            "HTTP_X_USER_DOMAIN_ID": "default",
            "HTTP_X_USER_DOMAIN_NAME": "Default",
            "HTTP_X_PROJECT_ID": self._projects[token.project],
            "HTTP_X_PROJECT_NAME": token.project,
            "HTTP_X_PROJECT_DOMAIN_ID": "default",
            "HTTP_X_PROJECT_DOMAIN_NAME": "Default",
            "HTTP_X_TENANT_ID": self._projects[token.project],
            "HTTP_X_ROLES": ",".join(token.roles),
        }


class Authenticator:
    """WSGI middleware: a valid token becomes identity headers, else 401."""

    def __init__(
        self,
        application: control.Application,
        identity: Identity,
        public: typing.Collection[str],
    ) -> None:
        self._application = application
        self._identity = identity
        self._public = frozenset(p.rstrip("/") for p in public)

    def __call__(
        self, environ: control.Environ, start_response: control.StartResponse
    ) -> typing.Any:
        for name in list(environ):
            # Nobody brings an identity of his own.
            if name.startswith(
                (
                    "HTTP_X_USER",
                    "HTTP_X_PROJECT",
                    "HTTP_X_TENANT",
                    "HTTP_X_ROLE",
                )
            ):
                del environ[name]
        token = self._identity.token(environ.get("HTTP_X_AUTH_TOKEN"))
        if token is not None:
            environ.update(self._identity.headers(token))
        elif environ.get("PATH_INFO", "").rstrip("/") not in self._public:
            body = b'{"error": {"code": 401, "title": "Unauthorized"}}'
            start_response(
                "401 Unauthorized",
                [
                    ("Content-Type", "application/json"),
                    (
                        "WWW-Authenticate",
                        "Keystone uri='%s'"
                        % self._identity.endpoint("identity"),
                    ),
                    ("Content-Length", str(len(body))),
                ],
            )
            return [body]
        return self._application(environ, start_response)


class IdentityApplication:
    """The identity API, as much of it as clients and middleware ask for."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def __call__(
        self, environ: control.Environ, start_response: control.StartResponse
    ) -> list[bytes]:
        status, answer, headers = self._answer(environ)
        body = b"" if answer is None else json.dumps(answer).encode()
        headers["Content-Length"] = str(len(body))
        headers["Content-Type"] = "application/json"
        headers["Vary"] = "X-Auth-Token"
        start_response(status, list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(
        self, environ: control.Environ
    ) -> tuple[str, typing.Any, dict[str, str]]:
        path = environ.get("PATH_INFO", "").strip("/")
        method = environ["REQUEST_METHOD"]
        if path in ("", "v3"):
            version = {
                "id": "v3.14",
                "status": "stable",
                "updated": "2020-04-07T00:00:00Z",
                "links": [
                    {
                        "rel": "self",
                        "href": self._identity.endpoint("identity"),
                    }
                ],
                "media-types": [],
            }
            if path:
                return "200 OK", {"version": version}, {}
            return "300 Multiple", {"versions": {"values": [version]}}, {}
        if path == "v3/auth/tokens" and method == "POST":
            return self._issue(environ)
        asking = self._identity.token(environ.get("HTTP_X_AUTH_TOKEN"))
        if asking is None:
            return _failure(401, "Unauthorized")
        environ["HTTP_X_USER_NAME"] = asking.user
        if path == "v3/auth/tokens":
            key = environ.get("HTTP_X_SUBJECT_TOKEN")
            subject = self._identity.token(key)
            if subject is None:
                return _failure(404, "Not Found")
            if method == "DELETE":
                return "204 No Content", None, {}
            return (
                "200 OK",
                self._identity.describe(subject),
                {"X-Subject-Token": str(key)},
            )
        return self._collection(path, environ.get("QUERY_STRING", ""))

    def _issue(
        self, environ: control.Environ
    ) -> tuple[str, typing.Any, dict[str, str]]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        try:
            issued = self._identity.issue(
                json.loads(environ["wsgi.input"].read(length))
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return _failure(400, "Bad Request")
        if issued is None:
            return _failure(401, "Unauthorized")
        key, token = issued
        environ["HTTP_X_USER_NAME"] = token.user
        return (
            "201 Created",
            self._identity.describe(token),
            {"X-Subject-Token": key},
        )

    def _collection(
        self, path: str, query: str
    ) -> tuple[str, typing.Any, dict[str, str]]:
        identity = self._identity
        parts = path.split("/")[1:]
        if parts[:1] == ["auth"]:
            parts = parts[1:]
        noun = parts[0] if parts else ""
        rows: dict[str, list[dict[str, typing.Any]]] = {
            "catalog": identity.catalog(),
            "projects": identity.projects(),
            "users": identity.users(),
            "roles": identity.roles(),
            "domains": [
                {
                    "id": "default",
                    "name": "Default",
                    "enabled": True,
                    "links": {},
                }
            ],
            "regions": [
                {
                    "id": REGION,
                    "description": "",
                    "parent_region_id": None,
                    "links": {},
                }
            ],
            "services": [
                {k: s[k] for k in ("id", "type", "name")}
                | {"enabled": True, "links": {}}
                for s in identity.catalog()
            ],
            "endpoints": [
                e | {"service_id": s["id"], "enabled": True, "links": {}}
                for s in identity.catalog()
                for e in s["endpoints"]
            ],
        }
        found = rows.get(noun, [])
        if len(parts) == 2 and noun in rows:
            for row in found:
                if row["id"] == parts[1]:
                    return "200 OK", {noun[:-1]: row}, {}
            return _failure(404, "Not Found")
        wanted = dict(p.split("=", 1) for p in query.split("&") if "=" in p)
        for key in ("name", "type"):
            if key in wanted:
                found = [r for r in found if r.get(key) == wanted[key]]
        return (
            "200 OK",
            {
                noun: found,
                "links": {"next": None, "previous": None, "self": ""},
            },
            {},
        )


class ImageApplication:
    """The one image there is, for clients that show it.

    :ivar properties: what somebody has given it besides what every image has
    """

    def __init__(self) -> None:
        self.properties: dict[str, str] = {}

    def __call__(
        self, environ: control.Environ, start_response: control.StartResponse
    ) -> list[bytes]:
        path = environ.get("PATH_INFO", "").rstrip("/")
        image = {
            "id": IMAGE_ID,
            "name": "cirros",
            "status": "active",
            "visibility": "public",
            "disk_format": "raw",
            "container_format": "raw",
            "min_disk": 0,
            "min_ram": 0,
            "size": 1,
            "tags": [],
            **self.properties,
        }
        status, answer = "200 OK", typing.cast(typing.Any, image)
        if path == "/v2/images":
            answer = {"images": [image]}
        elif path in ("", "/versions"):
            status, answer = (
                "300 Multiple",
                {
                    "versions": [
                        {
                            "id": "v2.9",
                            "status": "CURRENT",
                            "links": [
                                {
                                    "rel": "self",
                                    "href": "http://%s/v2/"
                                    % environ.get("HTTP_HOST", ""),
                                }
                            ],
                        }
                    ]
                },
            )
        elif path != "/v2/images/" + IMAGE_ID:
            status, answer = "404 Not Found", {}
        body = json.dumps(answer).encode()
        start_response(
            status,
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
            ],
        )
        return [body]


class NetworkApplication:
    """Ports of instances, as much of Neutron as is asked for here.

    It is in the catalogue while it has been given ports. Nova does not know
    it: the ports belong to nobody's guest.
    """

    def __init__(self, identity: Identity, port: int) -> None:
        self._identity = identity
        self._port = port
        self._ports: list[dict[str, typing.Any]] = []

    def set_ports(self, ports: list[dict[str, typing.Any]] | None) -> None:
        """Offer these ports; None takes Neutron out of the cloud."""
        self._ports = list(ports or [])
        if ports is None:
            self._identity.remove_endpoint("network")
        else:
            self._identity.set_endpoint("network", self._port)

    def __call__(
        self, environ: control.Environ, start_response: control.StartResponse
    ) -> list[bytes]:
        status, answer = "200 OK", typing.cast(typing.Any, {})
        if environ.get("PATH_INFO", "").rstrip("/") != "/v2.0/ports":
            status = "404 Not Found"
        else:
            query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
            fields = query.get("fields")
            found = [
                port
                for port in self._ports
                if port["device_id"]
                in query.get("device_id", [port["device_id"]])
            ]
            marker = query.get("marker", [None])[0]
            if marker is not None:
                ids = [port["id"] for port in found]
                found = found[ids.index(marker) + 1 :]
            limit = int(query.get("limit", [len(found)])[0])
            answer = {
                "ports": [
                    {k: v for k, v in port.items() if k in (fields or port)}
                    for port in found[:limit]
                ]
            }
            if len(found) > limit:
                # Its host is of no use behind a proxy, as in real clouds.
                href = "http://neutron.internal/v2.0/ports"
                answer["ports_links"] = [{"rel": "next", "href": href}]
        body = json.dumps(answer).encode()
        start_response(
            status,
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
            ],
        )
        return [body]


def _failure(code: int, title: str) -> tuple[str, typing.Any, dict[str, str]]:
    return (
        "%d %s" % (code, title),
        {"error": {"code": code, "title": title, "message": title}},
        {},
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _stamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
