"""Who signs in at the reviewer's page: named tokens, of which only the hash is kept."""

import hmac
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from promolift.promotion.approval import ROLES, Person
from serving.key_file import KeyFile, hash_of
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
    """The people of a file. Raises InputError where it cannot be used."""

    def __init__(self, file: Path) -> None:
        self._people = people_in(file).read()

    def person(self, token: str) -> Person:
        """Whose token it is. Raises RequestError 401."""
        found = self._people.get(hash_of(token))
        if found is None:
            raise RequestError(401, "Not signed in", "The token is unknown; ask for one, or make one with `python -m serving.review add`.")
        return Person(found.name, found.grants)


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


def people_in(file: Path) -> KeyFile:
    """The file of people: named tokens and their roles."""
    return KeyFile(file, ROLES, "Role", "python -m serving.review add")
