"""Who signs in at the reviewer's page: named tokens of which only the hash is kept, or an OpenID Connect provider."""

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError
from promolift.promotion.approval import ROLES, Person
from serving.kserve.problem import RequestError

SESSION_S = 8 * 3600.0
"""How long a sign-in lasts."""


@dataclass(frozen=True)
class Session:
    """A signed-in person, until `ends` (seconds since 1970); `csrf` must come back with every form."""

    person: Person
    ends: float
    csrf: str


class People:
    """The file of named tokens. Raises InputError where it cannot be used."""

    def __init__(self, file: Path) -> None:
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))["people"]
            self._people = {str(e["sha256"]): Person(str(e["name"]), frozenset(e["roles"])) for e in entries}
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise InputError(
                f"The file of people {file} cannot be used ({problem}); write it with `python -m serving.review add`."
            ) from problem

    def person(self, token: str) -> Person:
        """Whose token it is. Raises RequestError 401."""
        found = self._people.get(hashlib.sha256(token.encode()).hexdigest())
        if found is None:
            raise RequestError(401, "Not signed in", "The token is unknown; ask for one, or make one with `python -m serving.review add`.")
        return found


class Sessions:
    """Signed-in people by the random id in their cookie. Of this process: a restart signs everybody out."""

    def __init__(self, lasts_s: float = SESSION_S) -> None:
        self._lasts, self._open = lasts_s, dict[str, Session]()

    def begin(self, person: Person) -> str:
        """The id of a new session."""
        now = time.time()
        self._open = {name: session for name, session in self._open.items() if session.ends > now}
        identifier = secrets.token_urlsafe(32)
        self._open[identifier] = Session(person, now + self._lasts, secrets.token_urlsafe(32))
        return identifier

    def find(self, identifier: str) -> Session | None:
        """The session, unless it has ended."""
        found = self._open.get(identifier)
        return found if found and found.ends > time.time() else None

    def end(self, identifier: str) -> None:
        """Sign out."""
        self._open.pop(identifier, None)


def need_form(session: Session, csrf: str) -> None:
    """Raises RequestError 403 for a form that this session was not shown."""
    if not hmac.compare_digest(session.csrf, csrf):
        raise RequestError(403, "The form is not ours", "The form is not of this page, or is older than your sign-in; load it again.")


def add_person(file: Path, name: str, roles: list[str]) -> str:
    """A new token for `name`, shown once. Raises InputError for an unknown role, or a name that has a token."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise InputError(f"Role '{''.join(unknown[:1])}' is unknown; give one or more of {', '.join(ROLES)}.")
    document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"people": []}
    if any(entry["name"] == name for entry in document["people"]):
        raise InputError(f"'{name}' has a token in {file}; delete its entry first, or choose another name.")
    token = secrets.token_urlsafe(32)
    document["people"].append({"name": name, "roles": roles, "sha256": hashlib.sha256(token.encode()).hexdigest()})
    write_json(file, document)
    file.chmod(0o600)
    return token
