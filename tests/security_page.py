"""The parts of docs/security.md that federation.py says; `nox -s schema` writes them."""

from __future__ import annotations

import re

from scripts.setup import permissions
from tests.conftest import ROOT
from tests.federation_help import REPOSITORY, planned

PAGE = ROOT / "docs" / "security.md"

_STOPS = {
    "owner": "a repository whose name and owner's name were taken over",
    "repository": "every other repository, forks too",
    "branch": "every other branch, tags, pull requests",
    "event": "what runs on main for a stranger: `pull_request_target`, comments, other runs",
    "workflow": "other workflows of this repository, reusable ones of others",
}


def condition() -> str:
    """The attribute condition, part by part."""
    rows = ["| The token must say | It stops |", "| --- | --- |"]
    for name, text in REPOSITORY.conditions().items():
        # A list of files reads better without what they have in common.
        shown = re.sub(r"assertion\.repository \+ '(/[^']*)'", r"'…\1'", text)
        rows.append(f"| `{shown}` | {_STOPS[name]} |")
    return "\n".join(rows)


def identities() -> str:
    """Who may do what, for a private service in production."""
    plan = planned("production", access="private")
    known = {account.member: f"`{account.id}`" for account in plan.accounts}
    rows = ["| Who | Role | On | For |", "| --- | --- | --- | --- |"]
    for binding in plan.bindings:
        who = known.get(binding.member, "Cloud Run's own agent")
        if binding.role == permissions.IMPERSONATE:
            who = f"`{binding.member.partition('/attribute.')[2]}`"
        name = (binding.resource.name or binding.resource.project).partition("@")[0]
        role = binding.role.removeprefix("roles/")
        rows.append(f"| {who} | `{role}` | {binding.resource.kind} `{name}` | {binding.why} |")
    return "\n".join(rows)


def mapping() -> str:
    """The attribute mapping."""
    return "\n".join(["```", *(f"{k} = {v}" for k, v in permissions.MAPPING.items()), "```"])


def page(text: str) -> str:
    """The page with its generated parts as they should be now."""
    for name, made in (
        ("condition", condition()),
        ("mapping", mapping()),
        ("identities", identities()),
    ):
        start, end = f"<!-- {name}: written by nox -s schema -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        assert found, f"{PAGE}: no part {name}"
        text = f"{before}{start}{made}\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
