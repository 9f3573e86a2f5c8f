"""Users and groups by name. `COPY --chown` asks for their numbers, nothing for their rights."""

from __future__ import annotations

from dataclasses import dataclass, field

# The options of useradd and its like that a value follows.
_WITH_VALUE = frozenset(
    {"-u", "--uid", "-g", "--gid", "-G", "--groups", "-s", "--shell", "-d", "--home", "--home-dir",
     "-h", "-c", "--comment", "--gecos", "--ingroup", "-b", "-k"}
)  # fmt: skip
# Of Debian, and of the node image.
_KNOWN = {"root": 0, "daemon": 1, "bin": 2, "sys": 3, "www-data": 33, "node": 1000}


@dataclass
class Users:
    """The users and groups that a stage knows, by name, and the next number for a new one."""

    users: dict[str, int] = field(default_factory=lambda: {**_KNOWN, "nobody": 65534})
    groups: dict[str, int] = field(default_factory=lambda: {**_KNOWN, "nogroup": 65534})

    def copy(self) -> Users:
        """Return a copy that can be changed."""
        return Users(dict(self.users), dict(self.groups))

    def execute(self, name: str, rest: list[str]) -> None:
        """Execute `useradd`, `adduser`, `groupadd` or `addgroup`."""
        table = self.users if "user" in name else self.groups
        number, words = None, list(rest)
        names = []
        while words:
            word = words.pop(0)
            option, equals, value = word.partition("=")
            if option in _WITH_VALUE:
                value = value if equals else (words.pop(0) if words else "")
                own = ("-u", "--uid") if "user" in name else ("-g", "--gid")
                number = int(value) if option in own and value.isdigit() else number
            elif not word.startswith("-"):
                names.append(word)
        for new in names[-1:] if name == "useradd" else names[:1]:
            table.setdefault(new, number if number is not None else 1000 + len(table))
            if table is self.users:  # most systems make a group of the same name
                self.groups.setdefault(new, table[new])
