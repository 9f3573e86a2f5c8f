"""A stand-in for GitHub's REST API, which the real `gh` talks to over a Unix socket.

It keeps one repository, acme/app: its environments, rulesets, variables and classic protection. It
answers as GitHub documents it, and refuses what GitHub refuses. Where GitHub's documentation leaves
open what a PUT of an environment does to rules that it does not name, this one removes them.

Sources: https://docs.github.com/en/rest/deployments/environments,
https://docs.github.com/en/rest/deployments/branch-policies, https://docs.github.com/en/rest/repos/rules,
https://docs.github.com/en/rest/branches/branch-protection, https://docs.github.com/en/rest/actions/variables.
What plans lack: https://github.com/google/go-github/blob/master/github/repos_environments.go (404,
422) and https://github.com/backstage/backstage/issues/28977 (the message).
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

needs_gh = pytest.mark.skipif(
    shutil.which("gh") is None, reason="left out: gh is not installed (apt-get install gh)"
)
REPO = "acme/app"
USERS = {
    "alice": 101,
    "bob": 102,
    "carol": 103,
    "dave": 104,
    "eve": 105,
    "frank": 106,
    "grace": 107,
}
TEAMS = {"acme/on-call": 201}
_PULL_REQUEST = {
    "dismiss_stale_reviews_on_push": bool, "require_code_owner_review": bool,
    "require_last_push_approval": bool, "required_approving_review_count": int,
    "required_review_thread_resolution": bool,
}  # fmt: skip
_BARE = {"deletion", "non_fast_forward", "required_linear_history", "creation"}
_UPGRADE = "Upgrade to GitHub Pro or make this repository public to enable this feature."
_BILLING = (
    "Failed to create the environment protection rule. Please ensure the billing plan supports the"
    " required reviewers protection rule."
)
Answer = tuple[int, Any]


class Refusal(Exception):
    """An answer of GitHub that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer: Answer = (
            status,
            {"message": message, "documentation_url": "https://docs.github.com/rest"},
        )


class GitHub:
    """The stand-in, and what it keeps.

    Attributes:
        private: whether the repository is private.
        plan: the owner's plan: "free", "team" or "enterprise".
        environments: name -> its rules, as in the body of a PUT.
        policies: name of an environment -> its deployment branch policies.
        rulesets: id -> ruleset, with the fields that GitHub adds.
        variables: name of an environment, or "" -> name -> value.
        classic: the classic protection of main; None without one.
        writes: method and path of every write.
    """

    def __init__(self) -> None:
        self.private, self.plan = False, "free"
        self.environments: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, list[dict[str, Any]]] = {}
        self.rulesets: dict[int, dict[str, Any]] = {}
        self.variables: dict[str, dict[str, str]] = {"": {}}
        self.classic: dict[str, Any] | None = None
        self.writes: list[str] = []
        self._ids = iter(range(1000, 100000))
        self.folder = Path(tempfile.mkdtemp(prefix="github"))  # the path of a socket must be short
        socket = self.folder / "socket"
        (self.folder / "config.yml").write_text(f"http_unix_socket: {socket}\n")
        self._server = _Server(str(socket), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def env(self, token: str = "admin") -> dict[str, str]:
        """Return the environment in which gh is logged in: as "admin", "reader" or anything."""
        return {"GH_CONFIG_DIR": str(self.folder), "GH_TOKEN": token}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        shutil.rmtree(self.folder)

    def answer(self, method: str, url: str, body: Any, token: str) -> Answer:
        """Answer a request."""
        parts = urlsplit(url)
        if token not in ("admin", "reader"):
            raise Refusal(401, "Bad credentials")
        if method != "GET":
            if token != "admin":
                raise Refusal(403, "Must have admin rights to Repository.")
            self.writes.append(f"{method} {parts.path}")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        for wanted, pattern, act in _ROUTES:
            if wanted == method and (match := re.fullmatch(pattern, parts.path)):
                names = [unquote(text) for text in match.groups()]
                return act(self, names, body if method != "GET" else {**query, "token": token})
        raise Refusal(404, "Not Found")

    # The repository, users, teams

    def _repository(self, _names: list[str], _body: Any) -> Answer:
        return 200, {
            "id": 4711, "name": "app", "full_name": REPO, "private": self.private,
            "owner": {"login": "acme", "id": 42, "type": "Organization"}, "default_branch": "main",
        }  # fmt: skip

    def _user(self, names: list[str], _body: Any) -> Answer:
        if names[0] not in USERS:
            raise Refusal(404, "Not Found")
        return 200, {"login": names[0], "id": USERS[names[0]], "type": "User"}

    def _team(self, names: list[str], _body: Any) -> Answer:
        number = TEAMS.get("/".join(names))
        if number is None:
            raise Refusal(404, "Not Found")
        return 200, {"id": number, "name": names[1].title(), "slug": names[1]}

    # Environments

    def _environment(self, names: list[str], _body: Any) -> Answer:
        if self.private and self.plan == "free":
            raise Refusal(404, "Not Found")
        return 200, self._shown(names[0])

    def _shown(self, name: str) -> dict[str, Any]:
        try:
            kept = self.environments[name]
        except KeyError:
            raise Refusal(404, "Not Found") from None
        rules: list[dict[str, Any]] = []
        if kept.get("wait_timer"):
            rules.append({"id": 1, "node_id": "a", "type": "wait_timer",
                          "wait_timer": kept["wait_timer"]})  # fmt: skip
        if kept.get("reviewers"):
            rules.append({
                "id": 2, "node_id": "b", "type": "required_reviewers",
                "prevent_self_review": kept.get("prevent_self_review", False),
                "reviewers": [_shown_reviewer(one) for one in kept["reviewers"]],
            })  # fmt: skip
        if kept.get("deployment_branch_policy"):
            rules.append({"id": 3, "node_id": "c", "type": "branch_policy"})
        return {
            "id": 7, "node_id": "d", "name": name, "protection_rules": rules,
            "url": f"https://api.github.com/repos/{REPO}/environments/{name}",
            "html_url": f"https://github.com/{REPO}/deployments/activity_log",
            "created_at": "2026-11-23T22:00:40Z", "updated_at": "2026-11-23T22:00:40Z",
            "can_admins_bypass": kept.get("can_admins_bypass", True),
            "deployment_branch_policy": kept.get("deployment_branch_policy"),
        }  # fmt: skip

    def _put_environment(self, names: list[str], body: Any) -> Answer:
        if self.private and self.plan == "free":
            raise Refusal(404, "Not Found")
        _only(body, wait_timer=int, prevent_self_review=bool, reviewers=list,
              can_admins_bypass=bool, deployment_branch_policy=dict)  # fmt: skip
        if self.private and self.plan != "enterprise" and set(body) - {"deployment_branch_policy"}:
            raise Refusal(422, _BILLING)
        policy, reviewers = body.get("deployment_branch_policy"), body.get("reviewers") or []
        if policy is not None:
            _only(policy, protected_branches=bool, custom_branch_policies=bool)
            if policy["protected_branches"] == policy["custom_branch_policies"]:
                raise Refusal(422, "protected_branches and custom_branch_policies cannot be equal")
        for one in reviewers:
            _only(one, type=str, id=int)
            if one["id"] not in (USERS if one["type"] == "User" else TEAMS).values():
                raise Refusal(422, "Failed to create the environment protection rule.")
        if len(reviewers) > 6:
            raise Refusal(422, "Maximum number of reviewers is 6")
        if body.get("prevent_self_review") and not reviewers:
            raise Refusal(
                422,
                "Failed to create or update the environment protection rule. Required reviewers"
                " must have at least one reviewer to set prevent_self_review.",
            )
        self.environments[names[0]] = body
        self.variables.setdefault(names[0], {})
        if not policy or not policy["custom_branch_policies"]:
            self.policies.pop(names[0], None)
        return 200, self._shown(names[0])

    def _named(self, env: str) -> list[dict[str, Any]]:
        policy = self._shown(env)["deployment_branch_policy"] or {}
        if not policy.get("custom_branch_policies"):
            raise Refusal(404, "Not Found")
        return self.policies.setdefault(env, [])

    def _policies(self, names: list[str], _body: Any) -> Answer:
        kept = self._named(names[0])
        return 200, {"total_count": len(kept), "branch_policies": kept}

    def _post_policy(self, names: list[str], body: Any) -> Answer:
        kept = self._named(names[0])
        _only(body, name=str, type=str)
        made = {"id": next(self._ids), "node_id": "e", **body}
        kept.append(made)
        return 200, made

    # Variables

    def _list_variables(self, env: str, query: Any) -> Answer:
        if env and env not in self.environments:
            raise Refusal(404, "Not Found")
        kept = sorted(self.variables[env].items())
        size = min(int(query.get("per_page", 10)), 30)
        start = (int(query.get("page", 1)) - 1) * size
        return 200, {
            "total_count": len(kept),
            "variables": [{"name": n, "value": v} for n, v in kept[start : start + size]],
        }

    def _set_variable(self, env: str, name: str | None, body: Any) -> Answer:
        if env and env not in self.environments:
            raise Refusal(404, "Not Found")
        _only(body, name=str, value=str)
        kept = self.variables[env]
        if name is None and body["name"] in kept:
            raise Refusal(409, "Already exists - Variable already exists")
        if name is not None and name not in kept:
            raise Refusal(404, "Not Found")
        kept[name or body["name"]] = body["value"]
        return (201, {}) if name is None else (204, None)

    # Rules of branches

    def _has_rules(self) -> None:
        if self.private and self.plan == "free":
            raise Refusal(403, _UPGRADE)

    def _list_rulesets(self, _names: list[str], _body: Any) -> Answer:
        self._has_rules()
        hidden = ("rules", "conditions", "bypass_actors")
        return 200, [
            {key: value for key, value in one.items() if key not in hidden}
            for one in self.rulesets.values()
        ]

    def _ruleset(self, names: list[str], query: Any) -> Answer:
        try:
            kept = self.rulesets[int(names[0])]
        except KeyError:
            raise Refusal(404, "Not Found") from None
        hidden = ("bypass_actors",) if query["token"] != "admin" else ()
        return 200, {key: value for key, value in kept.items() if key not in hidden}

    def _post_ruleset(self, _names: list[str], body: Any) -> Answer:
        self._has_rules()
        if any(one["name"] == body["name"] for one in self.rulesets.values()):
            raise Refusal(422, "Validation Failed: Name must be unique")
        number = next(self._ids)
        self.rulesets[number] = _checked_ruleset(body, number)
        return 201, self.rulesets[number]

    def _put_ruleset(self, names: list[str], body: Any) -> Answer:
        self.rulesets[int(names[0])] = _checked_ruleset(body, int(names[0]))
        return 200, self.rulesets[int(names[0])]

    def _rules_of_main(self, _names: list[str], _body: Any) -> Answer:
        self._has_rules()
        found = []
        for one in self.rulesets.values():
            where = one["conditions"]["ref_name"]
            if one["enforcement"] == "active" and _hits(where["include"]) > _hits(where["exclude"]):
                source = {"ruleset_source_type": "Repository", "ruleset_source": REPO,
                          "ruleset_id": one["id"]}  # fmt: skip
                found += [{**rule, **source} for rule in one["rules"]]
        return 200, found

    def _protection(self, _names: list[str], query: Any) -> Answer:
        self._has_rules()
        if query["token"] != "admin":
            raise Refusal(404, "Not Found")
        if self.classic is None:
            raise Refusal(404, "Branch not protected")
        return 200, self.classic


def _only(body: Any, **types: type) -> None:
    """Refuse a body with another key, or a value of another type."""
    for key, value in body.items():
        if key not in types or type(value) is not types[key]:
            raise Refusal(422, f"Invalid request. {key}: {value!r}")


def _hits(patterns: list[str]) -> bool:
    names = ("refs/heads/main", "~DEFAULT_BRANCH", "~ALL")
    return any(fnmatch.fnmatchcase(name, one) for one in patterns for name in names)


def _shown_reviewer(one: dict[str, Any]) -> dict[str, Any]:
    if one["type"] == "User":
        [login] = [name for name, number in USERS.items() if number == one["id"]]
        return {"type": "User", "reviewer": {"id": one["id"], "login": login, "type": "User"}}
    [slug] = [name for name, number in TEAMS.items() if number == one["id"]]
    return {"type": "Team", "reviewer": {"id": one["id"], "slug": slug.partition("/")[2]}}


def _checked_ruleset(body: Any, number: int) -> dict[str, Any]:
    """Return a ruleset as GitHub stores it."""
    _only(body, name=str, target=str, enforcement=str, bypass_actors=list, conditions=dict,
          rules=list)  # fmt: skip
    if body["target"] != "branch" or body["enforcement"] not in ("active", "evaluate", "disabled"):
        raise Refusal(422, "Invalid request.")
    _only(body["conditions"], ref_name=dict)
    _only(body["conditions"]["ref_name"], include=list, exclude=list)
    for actor in body["bypass_actors"]:
        _only(actor, actor_id=int, actor_type=str, bypass_mode=str)
    rules = []
    for rule in body["rules"]:
        kept = dict(rule)
        parameters = dict(rule.get("parameters", {}))
        if rule["type"] == "pull_request":
            more = {
                "allowed_merge_methods": ["merge", "squash", "rebase"],
                "required_reviewers": [],
            }
            parameters = {**more, **parameters}
            _only(parameters, allowed_merge_methods=list, required_reviewers=list, **_PULL_REQUEST)
            if lacking := set(_PULL_REQUEST) - set(parameters):
                raise Refusal(422, f"Invalid request. {lacking} wasn't supplied.")
        elif rule["type"] == "required_status_checks":
            _only(parameters, strict_required_status_checks_policy=bool,
                  do_not_enforce_on_create=bool, required_status_checks=list)  # fmt: skip
            for check in parameters["required_status_checks"]:
                _only(check, context=str, integration_id=int)
        elif rule["type"] not in _BARE or parameters:
            raise Refusal(422, f"Invalid request. Invalid rule '{rule['type']}'")
        rules.append({**kept, "parameters": parameters} if parameters else kept)
    return {
        **body, "rules": rules, "id": number, "source_type": "Repository", "source": REPO,
        "node_id": "f", "created_at": "2026-11-23T22:00:40Z", "updated_at": "2026-11-23T22:00:40Z",
        "current_user_can_bypass": "never",
    }  # fmt: skip


_R = f"/repos/{REPO}"
_E = rf"{_R}/environments/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[[GitHub, list[str], Any], Answer]]] = [
    ("GET", _R, GitHub._repository),
    ("GET", "/users/", lambda _g, _n, _b: (200, [])),  # a list, as without the slash
    ("GET", r"/users/([^/]+)", GitHub._user),
    ("GET", r"/orgs/([^/]+)/teams/([^/]+)", GitHub._team),
    ("GET", _E, GitHub._environment),
    ("PUT", _E, GitHub._put_environment),
    ("GET", f"{_E}/deployment-branch-policies", GitHub._policies),
    ("POST", f"{_E}/deployment-branch-policies", GitHub._post_policy),
    ("GET", f"{_R}/actions/variables", lambda g, n, b: g._list_variables("", b)),
    ("POST", f"{_R}/actions/variables", lambda g, n, b: g._set_variable("", None, b)),
    ("PATCH", rf"{_R}/actions/variables/(\w+)", lambda g, n, b: g._set_variable("", n[0], b)),
    ("GET", f"{_E}/variables", lambda g, n, b: g._list_variables(n[0], b)),
    ("POST", f"{_E}/variables", lambda g, n, b: g._set_variable(n[0], None, b)),
    ("PATCH", rf"{_E}/variables/(\w+)", lambda g, n, b: g._set_variable(n[0], n[1], b)),
    ("GET", f"{_R}/rulesets", GitHub._list_rulesets),
    ("POST", f"{_R}/rulesets", GitHub._post_ruleset),
    ("GET", rf"{_R}/rulesets/(\d+)", GitHub._ruleset),
    ("PUT", rf"{_R}/rulesets/(\d+)", GitHub._put_ruleset),
    ("GET", f"{_R}/rules/branches/main", GitHub._rules_of_main),
    ("GET", f"{_R}/branches/main/protection", GitHub._protection),
]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def _handler(github: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self._body()
            token = self.headers.get("Authorization", "").rpartition(" ")[2]
            try:
                status, document = github.answer(self.command, self.path, body, token)
            except Refusal as refusal:
                status, document = refusal.answer
            data = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_POST = do_PATCH = do_GET

        def _body(self) -> Any:
            data = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return json.loads(data) if data else None

        def log_message(self, *arguments: object) -> None:
            """Print nothing: the address of a Unix socket has no host."""

    return Handler
