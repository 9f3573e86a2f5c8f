"""Write the parts of docs/security.md that follow from permissions.py (`nox -s schema`)."""

from __future__ import annotations

import re

from scripts.setup import identity_provider, permissions, steps
from tests.conftest import ROOT
from tests.federation_help import REPOSITORY, planned

PAGE = ROOT / "docs" / "security.md"

_STOPS = {
    "owner": "someone who took over the name of the owner or of the repository",
    "repository": "every other repository, including forks",
    "branch": "every other branch, tags, pull requests",
    "event": "events that a stranger causes on main: `pull_request_target`, comments, other runs",
    "workflow": "runs of other workflow files, even if they call build.yml or deliver-to.yml",
    "job": "jobs in deliver.yml itself, or in any other file that it calls, here or elsewhere",
    "attempt": "re-runs, which repeat the code and the workflow files of an old commit",
    "runner": "jobs on a self-hosted runner",
}


def condition() -> str:
    """Return the table of the attribute condition, one row for each part."""
    rows = ["| The token must match | It stops |", "| --- | --- |"]
    for name, text in REPOSITORY.conditions().items():
        # Shorten each file by the part that they have in common.
        shown = re.sub(r"assertion\.repository \+ '(/[^']*)'", r"'…\1'", text)
        rows.append(f"| `{shown}` | {_STOPS[name]} |")
    return "\n".join(rows)


def identities() -> str:
    """Return the table of identities and roles, for a private service that calls another one."""
    plan = planned("production", access="private", calls=True)
    known = {account.member: f"`{account.id}`" for account in plan.accounts}
    rows = ["| Who | Role | On | For |", "| --- | --- | --- | --- |"]
    for binding in plan.bindings:
        who = known.get(binding.member, "Cloud Run's own agent")
        if binding.role == permissions.IMPERSONATE:
            who = f"`{binding.member.partition('/attribute.')[2]}`"
        name = (binding.resource.name or binding.resource.project).partition("@")[0]
        role = steps.role_title(binding.role).removeprefix("roles/")
        rows.append(f"| {who} | `{role}` | {binding.resource.kind} `{name}` | {binding.why} |")
    return "\n".join(rows)


def custom_roles() -> str:
    """Return the table of the custom roles' permissions."""
    rows = ["| Role | Permissions |", "| --- | --- |"]
    for role in planned("production", access="private").roles:
        held = ", ".join(f"`{permission}`" for permission in role.permissions)
        rows.append(f"| `{role.id}` | {held} |")
    return "\n".join(rows)


def mapping() -> str:
    """Return the attribute mapping."""
    return "\n".join(["```", *(f"{k} = {v}" for k, v in identity_provider.MAPPING.items()), "```"])


def page(text: str) -> str:
    """Return the page with up-to-date generated parts."""
    for name, made in (
        ("condition", condition()),
        ("mapping", mapping()),
        ("identities", identities()),
        ("custom roles", custom_roles()),
    ):
        start, end = f"<!-- {name}: written by nox -s schema -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        assert found, f"{PAGE}: no part {name}"
        text = f"{before}{start}{made}\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
