"""The logins of callers over HTTP: rows of the ledger, so that every server of it knows them, and ends them for all.

A login begins with a client's request, and becomes a grant once the person has agreed: the Lium key, sealed, and
tokens, of which only digests are kept. Whatever is over is deleted, and the key with it. Importing this imports
SQLAlchemy, as with the ledger itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from lium_mcp.rentals.database import Database
from lium_mcp.rentals.logged_in import of_account
from lium_mcp.rentals.tables import GRANT_TOKENS, GRANTS, LOGIN_CLIENTS, LOGINS

LoginStatus = Literal["asked", "waiting", "agreed", "refused", "failed", "over"]
TokenKind = Literal["code", "access", "refresh"]

MOST_CLIENTS: Final = 10_000
_MOST_LISTED: Final = 1_000
_AGAIN: Final = timedelta(seconds=60)
"""So long after its use a refresh token may come again: its answer was lost, or two programs renew a login at once."""
# Each is a key that a person agreed to; the newest serve.
_MOST_OF_ACCOUNT: Final = 50


@dataclass(frozen=True, slots=True)
class LoginClient:
    """A program with which people can log in: it has registered itself, or has said in a document what it is.

    Attributes:
        created_at: When it said so.
    """

    id: str
    registration: Mapping[str, Any]
    sealed_secret: str | None = field(repr=False)
    created_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Login:
    """A login in progress.

    Attributes:
        ticket: The digest of what the page's address has.
        request: What the client asked for, and where the person is sent back to.
        browser: The digest of what the browser has in which the person began it.
        sealed: Lium's page and session.
        next_look_at: When Lium may be asked again.
        grant_id: What came of it.
    """

    ticket: str
    client_id: str
    request: Mapping[str, Any]
    until: datetime
    status: LoginStatus = "asked"
    browser: str | None = None
    sealed: str | None = field(default=None, repr=False)
    next_look_at: datetime | None = None
    grant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a person has agreed to.

    Attributes:
        account: The account that the key acts for, as the ledger knows it.
        sealed: The key, and whose it is.
        until: When it ends if it is not renewed.
    """

    id: str
    client_id: str
    client_name: str
    account: str
    sealed: str = field(repr=False)
    created_at: datetime
    renewed_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class GrantToken:
    """A token of a grant, by its digest; `terms` are those under which it was given, and in whose place (`after`)."""

    digest: str
    grant_id: str
    kind: TokenKind
    until: datetime
    terms: Mapping[str, Any] = field(default_factory=dict)
    used_at: datetime | None = None


class Grants:
    """The logins of all accounts. Each method raises LedgerUnavailable where the database cannot be used."""

    def __init__(self, database: Database) -> None:
        """Take the ledger's database."""
        self._database = database

    async def register(self, client: LoginClient) -> None:
        """Keep a client, also in the place of what was known of it.

        Of too many, the one goes that came first of those with which nobody has logged in.
        """

        def work(connection: Connection) -> None:
            _delete_what_is_over(connection, client.created_at)
            self._database.take_turn(connection, f"client {client.id}")
            own = LOGIN_CLIENTS.c.id == client.id
            until = connection.execute(select(LOGIN_CLIENTS.c.until).where(own)).scalar_one_or_none()
            if until is not None:
                values = _row(client) | {"until": max(until, client.until)}
                connection.execute(update(LOGIN_CLIENTS).where(own).values(values))
                return
            count = connection.execute(select(func.count()).select_from(LOGIN_CLIENTS)).scalar_one()
            if count >= MOST_CLIENTS:
                unused = LOGIN_CLIENTS.c.id.not_in(select(GRANTS.c.client_id))
                oldest = select(LOGIN_CLIENTS.c.id).where(unused).order_by(LOGIN_CLIENTS.c.created_at).limit(1)
                connection.execute(delete(LOGIN_CLIENTS).where(LOGIN_CLIENTS.c.id == oldest.scalar_subquery()))
            connection.execute(insert(LOGIN_CLIENTS).values(_row(client)))

        await self._database.run(work)

    async def client(self, client_id: str, *, now: datetime) -> LoginClient | None:
        """A client that has registered itself."""
        found = select(LOGIN_CLIENTS).where(LOGIN_CLIENTS.c.id == client_id, LOGIN_CLIENTS.c.until > now)
        row = await self._database.read(lambda connection: connection.execute(found).one_or_none())
        return None if row is None else LoginClient(**_values(row, LoginClient))

    async def begin(self, login: Login, *, now: datetime) -> None:
        """Keep a login that a client asks for."""

        def work(connection: Connection) -> None:
            _delete_what_is_over(connection, now)
            connection.execute(insert(LOGINS).values(_row(login)))

        await self._database.run(work)

    async def login(self, ticket: str, *, now: datetime) -> Login | None:
        """A login in progress."""
        found = select(LOGINS).where(LOGINS.c.ticket == ticket, LOGINS.c.until > now)
        row = await self._database.read(lambda connection: connection.execute(found).one_or_none())
        return None if row is None else Login(**_values(row, Login))

    async def change_login(self, login: Login, **values: Any) -> bool:  # noqa: ANN401 - columns
        """Write values of a login, unless another request has changed its status or its time meanwhile; whether it did.

        So each step of a login is taken once, whichever server is asked.
        """
        same_time = (
            LOGINS.c.next_look_at.is_(None)
            if login.next_look_at is None
            else LOGINS.c.next_look_at == login.next_look_at
        )
        own = LOGINS.c.ticket == login.ticket, LOGINS.c.status == login.status, same_time
        return await self._database.run(
            lambda connection: connection.execute(update(LOGINS).where(*own).values(**values)).rowcount == 1
        )

    async def agree(self, login: Login, grant: Grant) -> None:
        """Keep what a person has agreed to, as the end of their login."""

        def work(connection: Connection) -> None:
            connection.execute(insert(GRANTS).values(_row(grant)))
            values = {"status": "agreed", "grant_id": grant.id, "sealed": None}
            connection.execute(update(LOGINS).where(LOGINS.c.ticket == login.ticket).values(values))

        await self._database.run(work)

    async def hand_out(self, login: Login, code: GrantToken) -> bool:
        """Give the code for a login that was agreed to; whether this call did, since it is given once."""

        def work(connection: Connection) -> bool:
            own = LOGINS.c.ticket == login.ticket, LOGINS.c.status == "agreed"
            over = {"status": "over", "request": {}}  # nothing of it is needed any more
            if connection.execute(update(LOGINS).where(*own).values(over)).rowcount != 1:
                return False
            connection.execute(insert(GRANT_TOKENS).values(_row(code)))
            return True

        return await self._database.run(work)

    async def token(self, digest: str, kind: TokenKind, *, now: datetime) -> tuple[GrantToken, Grant] | None:
        """A token and its grant, also if the token was used; None where there is none, or its time is over."""
        of_kind = GRANT_TOKENS.c.digest == digest, GRANT_TOKENS.c.kind == kind, GRANT_TOKENS.c.until > now

        def work(connection: Connection) -> tuple[GrantToken, Grant] | None:
            token = connection.execute(select(GRANT_TOKENS).where(*of_kind)).one_or_none()
            if token is None:
                return None
            grant = connection.execute(select(GRANTS).where(GRANTS.c.id == token.grant_id)).one_or_none()
            if grant is None:
                return None
            return GrantToken(**_values(token, GrantToken)), Grant(**_values(grant, Grant))

        return await self._database.read(work)

    async def exchange(
        self, used: GrantToken, tokens: Sequence[GrantToken], renewed: Mapping[str, str], *, now: datetime
    ) -> bool:
        """Give tokens in the place of one, which is used up, and write values of their grant; whether this call did.

        One that was used before has been stolen, by whoever comes first or second: the grant ends. But for a refresh
        token that was used just now, if none of those given in its place has been: then more are given.
        """
        until = max(token.until for token in tokens)

        def work(connection: Connection) -> bool:
            _delete_what_is_over(connection, now)
            self._database.take_turn(connection, f"login {used.grant_id}")
            own = GRANT_TOKENS.c.digest == used.digest
            # Of what the client asked for when it began, a code that is used up needs nothing.
            terms = {name: used.terms[name] for name in ("resource", "after") if name in used.terms}
            first = update(GRANT_TOKENS).where(own, GRANT_TOKENS.c.used_at.is_(None)).values(used_at=now, terms=terms)
            if connection.execute(first).rowcount != 1 and not _may_come_again(connection, used, now):
                _end(connection, used.grant_id)
                return False
            connection.execute(insert(GRANT_TOKENS), [_row(token) for token in tokens])
            values = {**renewed, "renewed_at": now, "until": until}
            connection.execute(update(GRANTS).where(GRANTS.c.id == used.grant_id).values(values))
            client = select(GRANTS.c.client_id).where(GRANTS.c.id == used.grant_id).scalar_subquery()
            connection.execute(update(LOGIN_CLIENTS).where(LOGIN_CLIENTS.c.id == client).values(until=until))
            return True

        return await self._database.run(work)

    async def stands(self, grant_id: str) -> bool:
        """Whether a grant counts."""
        found = select(GRANTS.c.id).where(GRANTS.c.id == grant_id, GRANTS.c.until > datetime.now(UTC))
        return await self._database.read(lambda connection: connection.execute(found).first() is not None)

    async def end(self, grant_id: str) -> None:
        """End a grant: nothing of it stays, and no token of it counts any more."""
        await self._database.run(lambda connection: _end(connection, grant_id))

    async def of_account(self, account: str) -> list[Grant]:
        """The grants of an account that count, the newest first."""
        found = select(GRANTS).where(of_account(account)).order_by(GRANTS.c.created_at.desc()).limit(_MOST_OF_ACCOUNT)
        rows = await self._database.read(lambda connection: connection.execute(found).all())
        return [Grant(**_values(row, Grant)) for row in rows]

    async def newest(self, *, now: datetime) -> list[Grant]:
        """The grants that count, the newest first."""
        found = select(GRANTS).where(GRANTS.c.until > now).order_by(GRANTS.c.created_at.desc()).limit(_MOST_LISTED)
        rows = await self._database.read(lambda connection: connection.execute(found).all())
        return [Grant(**_values(row, Grant)) for row in rows]


def may_come_again(used: GrantToken, now: datetime) -> bool:
    """Whether a token that was used was so just now, as a refresh token may be twice."""
    return used.kind == "refresh" and used.used_at is not None and now - used.used_at <= _AGAIN


def _may_come_again(connection: Connection, used: GrantToken, now: datetime) -> bool:
    row = connection.execute(select(GRANT_TOKENS).where(GRANT_TOKENS.c.digest == used.digest)).one_or_none()
    if row is None or not may_come_again(GrantToken(**_values(row, GrantToken)), now):
        return False
    in_its_place = GRANT_TOKENS.c.terms["after"].as_string() == used.digest
    renewed = select(GRANT_TOKENS.c.digest).where(in_its_place, GRANT_TOKENS.c.used_at.is_not(None))
    return connection.execute(renewed.where(GRANT_TOKENS.c.grant_id == used.grant_id)).first() is None


def _end(connection: Connection, grant_id: str) -> None:
    connection.execute(delete(GRANT_TOKENS).where(GRANT_TOKENS.c.grant_id == grant_id))
    connection.execute(delete(GRANTS).where(GRANTS.c.id == grant_id))


def _delete_what_is_over(connection: Connection, now: datetime) -> None:
    for table in (LOGINS, GRANTS, LOGIN_CLIENTS):
        connection.execute(delete(table).where(table.c.until <= now))
    orphaned = GRANT_TOKENS.c.grant_id.not_in(select(GRANTS.c.id))
    connection.execute(delete(GRANT_TOKENS).where(or_(GRANT_TOKENS.c.until <= now, orphaned)))


def _row(record: LoginClient | Login | Grant | GrantToken) -> dict[str, Any]:
    return {item.name: getattr(record, item.name) for item in fields(record)}


def _values(row: Row[Any], kind: type[LoginClient | Login | Grant | GrantToken]) -> dict[str, Any]:
    return {item.name: row._mapping[item.name] for item in fields(kind)}  # noqa: SLF001 - SQLAlchemy's public name
