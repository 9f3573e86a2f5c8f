"""Cloud Build's substitutions, which replace $NAME and ${NAME} in text. Pure.

Source: https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values and, for
the errors, the validation of Google's own cloud-build-local. A build that a trigger starts is less
strict: a missing value is empty. A rehearsal is as strict as `gcloud builds submit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scripts.errors import UsageError, did_you_mean

BUILT_IN = (
    "PROJECT_ID", "PROJECT_NUMBER", "BUILD_ID", "LOCATION", "TRIGGER_NAME", "COMMIT_SHA",
    "REVISION_ID", "SHORT_SHA", "REPO_NAME", "REPO_FULL_NAME", "BRANCH_NAME", "TAG_NAME",
    "REF_NAME", "TRIGGER_BUILD_CONFIG_PATH", "SERVICE_ACCOUNT_EMAIL", "SERVICE_ACCOUNT",
)  # fmt: skip
_MADE = ("PROJECT_ID", "PROJECT_NUMBER", "BUILD_ID", "LOCATION")  # users cannot set these
_USERS = re.compile(r"_[A-Z0-9_]+")
_PARAMETER = re.compile(r"\$\$|\$\{([A-Z_][A-Z0-9_]*)([^}]*)\}|\$([A-Z_][A-Z0-9_]*)")
_MOST, _LONGEST_KEY, _LONGEST_VALUE = 200, 100, 4000

# The fields that Cloud Build substitutes in; it does not change `script`, `id` and `waitFor`.
_STEP_FIELDS = ("name", "args", "env", "dir", "entrypoint", "secretEnv")
_BUILD_FIELDS = ("images", "tags", "serviceAccount", "logsBucket", "availableSecrets", "artifacts")


class Substitutions:
    """The substitutions of one build.

    Args:
        file: The name of the build's file in errors.
        build: The build as it is in the file.
        built_in: The substitutions that Cloud Build fills in.
        given: The substitutions of the trigger or the user.

    Raises:
        UsageError: a name or a value is not allowed.
    """

    def __init__(
        self,
        file: str,
        build: Mapping[str, Any],
        built_in: Mapping[str, str],
        given: Mapping[str, str],
    ) -> None:
        self.file = file
        self.build = build
        declared = build.get("substitutions") or {}
        for name, value in {**declared, **given}.items():
            self._check(name, value)
        self._users = {name: str(value) for name, value in {**declared, **given}.items()}
        self._values = {**dict.fromkeys(BUILT_IN, ""), **built_in, **self._users}
        options = build.get("options") or {}
        self._loose = options.get("substitutionOption") == "ALLOW_LOOSE"
        self._dynamic = bool(options.get("dynamicSubstitutions"))
        self._used: set[str] = set()
        if self._dynamic:
            self._values |= {
                name: self.apply(value, "substitutions") for name, value in self._users.items()
            }

    def _check(self, name: str, value: Any) -> None:
        users = _USERS.fullmatch(name)
        if not users and (name not in BUILT_IN or name in _MADE):
            raise UsageError(
                f"{self.file}: substitutions.{name}: a user's substitution is named _ and then"
                " capitals, digits and underscores"
            )
        if not isinstance(value, str):
            raise UsageError(f"{self.file}: substitutions.{name}: expected text (use quotes)")
        if len(name) > _LONGEST_KEY or len(value) > _LONGEST_VALUE:
            raise UsageError(f"{self.file}: substitutions.{name}: too long")

    @property
    def environment(self) -> dict[str, str]:
        """All of them as variables, as `automapSubstitutions` gives them to a step."""
        return dict(self._values)

    def applied(self) -> dict[str, Any]:
        """Return the build with every substitution applied.

        Raises:
            UsageError: the build uses an unknown substitution, or does not use a given one.
        """
        if len(self._users) > _MOST:
            raise UsageError(f"{self.file}: more than {_MOST} substitutions")
        made = dict(self.build)
        for field in _BUILD_FIELDS:
            if field in made:
                made[field] = self.apply(made[field], field)
        options = dict(made.get("options") or {})
        mapped = bool(options.get("automapSubstitutions"))
        steps = []
        for index, step in enumerate(made.get("steps") or []):
            where = f"steps[{index}]"
            applied = {
                key: self.apply(value, f"{where}.{key}") if key in _STEP_FIELDS else value
                for key, value in step.items()
            }
            mapped = mapped or bool(step.get("automapSubstitutions"))
            steps.append(applied)
        made["steps"] = steps
        for field in ("env", "volumes"):
            if field in options:
                options[field] = self.apply(options[field], f"options.{field}")
        if options:
            made["options"] = options
        unused = sorted(self._users.keys() - self._used)
        if unused and not self._loose and not mapped:
            raise UsageError(
                f"{self.file}: key '{unused[0]}' in the substitution data is not matched in the"
                " template",
                did_you_mean(unused[0], sorted(self._used), "used there") if self._used else None,
            )
        return made

    def apply(self, value: Any, where: str) -> Any:
        """Return a value with the substitutions applied to its text, once."""
        if isinstance(value, str):
            return _PARAMETER.sub(lambda match: self._value(match, where), value)
        if isinstance(value, list):
            return [self.apply(item, where) for item in value]
        if isinstance(value, dict):
            return {key: self.apply(item, where) for key, item in value.items()}
        return value

    def _value(self, match: re.Match[str], where: str) -> str:
        if match[0] == "$$":
            return "$"
        name, operator = match[1] or match[3], match[2]
        if operator:
            if not self._dynamic:
                return match[0]  # not a substitution
            raise UsageError(
                f"{self.file}: {where}: {match[0]}: a rehearsal has no bash-style operations"
            )
        self._used.add(name)
        if name in self._values:
            return self._values[name]
        if not name.startswith("_"):
            raise UsageError(
                f"{self.file}: {where}: key '{name}' in the template is not a valid built-in"
                " substitution",
                f"for the shell's own variable write $${name}",
            )
        if self._loose:
            return ""
        raise UsageError(
            f"{self.file}: {where}: key '{name}' in the template is not matched in the"
            " substitution data",
            f"--input {name}=…",
        )
