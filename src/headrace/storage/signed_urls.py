"""URLs that are signed, or have a password: requests use what is secret in them, and everything else never sees it."""

from __future__ import annotations

import hashlib
import re
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

_WITH_QUERY = ("http://", "https://")
_WITH_PASSWORD = ("ftp://", "sftp://", "ssh://", "smb://", "webdav://", "webdavs://")
"""URLs whose users may have a password; in those of other file systems, a colon is something else."""

_SIGNING = frozenset({
    "access_key", "access_token", "accesskeyid", "accesstoken", "api-key", "api_key", "apikey", "auth", "auth_key",
    "auth_token", "authorization", "awsaccesskeyid", "client_secret", "credential", "credentials", "exp",
    "expiration", "expire", "expires", "expiry", "googleaccessid", "hmac", "id_token", "jwt", "key-pair-id",
    "ossaccesskeyid", "passwd", "password", "policy", "pwd", "q-ak", "q-header-list", "q-key-time",
    "q-sign-algorithm", "q-sign-time", "q-signature", "q-url-param-list", "secret", "security-token", "session_token",
    "sig", "sign", "signature", "token", "x-cos-security-token", "x-oss-additional-headers", "x-oss-credential",
    "x-oss-date", "x-oss-expires", "x-oss-security-token", "x-oss-signature", "x-oss-signature-version",
})  # fmt: skip
"""Names in a query, in small letters, of what says who may read an object and until when, but not which object."""

_SIGNING_STARTS = ("x-amz-", "x-goog-")

_OF_AZURE = frozenset({
    "rscc", "rscd", "rsce", "rscl", "rsct", "saoid", "scid", "sdd", "se", "ses", "sip", "ske", "skoid", "sks",
    "skt", "sktid", "skv", "sp", "spr", "sr", "srt", "ss", "st", "suoid", "sv",
})  # fmt: skip
"""Names that belong to the signature where there is a ``sig`` and an ``sv``."""

_HIDDEN = frozenset({"code", "h", "hash", "k", "key", "md5", "nonce", "rlkey", "s", "st", "verify"})
"""Names of what may be secret, and may also say which object: a hash of it is shown, and counts."""

_HASHED = "hidden-"

_URL_IN_TEXT = re.compile(r"[a-zA-Z]+://[^\s\"'<>,;|]*[^\s\"'<>,;|:.)]")

_ISO = ("%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d")


class Secrets(NamedTuple):
    """What requests for a URL need beside it: ``user:password``, and its whole query; None where it has no secret."""

    user: str
    query: str | None


NOTHING = Secrets("", None)
"""What there is to hide of most URLs."""

_queries: dict[str, str] = {}
"""The whole queries of signed URLs, by the plain URL."""

_users: dict[str, str] = {}
"""Users and passwords, by the beginning of URLs without them: ``https://host``."""


def plain(url: str) -> str:
    """Return a URL without what is secret in it; requests of this process, and of its workers, still use that.

    >>> plain("https://host/a.tar?id=5&X-Amz-Signature=abc&X-Amz-Expires=60#part")
    'https://host/a.tar?id=5'
    >>> plain("https://user:password@host/a.tar"), plain("s3://bucket/a?b#c@d"), plain("/data/a?b")
    ('https://host/a.tar', 's3://bucket/a?b#c@d', '/data/a?b')

    What signs a URL says nothing about which object it is: a URL that is signed again has the same plain URL. A value
    that may be both, such as that of ``key=``, is shown as a hash.
    """
    found, host, secrets = _parted(url)
    if secrets.user:
        _users[host] = secrets.user
    if secrets.query is not None:
        _queries[found] = secrets.query
    return found


def plain_text(text: str) -> str:
    """Return a text without what is secret in the URLs in it.

    >>> plain_text("https://host/a.jpg?sig=abc: 3, (https://me:word@host)")
    'https://host/a.jpg: 3, (https://host)'
    """
    return _URL_IN_TEXT.sub(lambda found: _parted(found[0])[0], text) if "://" in text else text


def _parted(url: str) -> tuple[str, str, Secrets]:
    """Return a URL without its secrets, the beginning of it up to the host, and the secrets."""
    scheme, slashes, rest = url.partition("://")
    start = f"{scheme.lower()}://"
    if not slashes or start not in _WITH_QUERY + _WITH_PASSWORD or not any(sign in rest for sign in "?#@"):
        return url, "", NOTHING
    has_query = start in _WITH_QUERY
    place, query = _split(rest) if has_query else (rest, "")
    host, slash, path = place.partition("/")
    user, _, name = host.rpartition("@")
    if has_query:
        host = name
    elif ":" in user:
        host = f"{user.partition(':')[0]}@{name}"
    else:
        user = ""
    found = f"{scheme}://{host}{slash}{path}"
    parts = [part for part in query.split("&") if part]
    shown = _shown(parts)
    kept = "&".join(shown)
    secrets = Secrets(user, None if shown == parts else query)
    return f"{found}?{kept}" if kept else found, f"{start}{host}", secrets


def is_http(url: str) -> bool:
    """Say whether a URL is one of an HTTP server, which may have a query.

    >>> is_http("HTTPS://host"), is_http("s3://bucket")
    (True, False)
    """
    return url[:8].lower().startswith(_WITH_QUERY)


def path_part(url: str) -> tuple[str, str]:
    """Return a path or a URL without its query, and the query with its question mark.

    >>> path_part("HTTP://host/a.tar?b=c/d"), path_part("s3://bucket/a?b")
    (('HTTP://host/a.tar', '?b=c/d'), ('s3://bucket/a?b', ''))
    """
    if "?" not in url or not is_http(url):
        return url, ""
    place, mark, query = url.partition("?")
    return place, f"{mark}{query}"


def _split(rest: str) -> tuple[str, str]:
    """Return what is before the query of a URL, and the query, without the fragment."""
    place, _, query = rest.partition("#")[0].partition("?")
    return place, query


def _shown(parts: list[str]) -> list[str]:
    """Return the parts of a query that say which object it is for."""
    names = [unquote_plus(part.partition("=")[0]).lower() for part in parts]
    signing = _SIGNING | _OF_AZURE if {"sig", "sv"} <= set(names) else _SIGNING
    kept = list[str]()
    for part, name in zip(parts, names, strict=True):
        if name in signing or name.startswith(_SIGNING_STARTS):
            continue
        key, equals, value = part.partition("=")
        if name in _HIDDEN and value and not value.startswith(_HASHED):
            part = f"{key}{equals}{_HASHED}{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        kept.append(part)
    return kept


def secrets_of(url: str) -> Secrets:
    """Return what requests for a plain URL need: what it was signed with, or else a folder that it is in.

    >>> _ = plain("https://account/box?sv=1&sp=r&sig=abc")
    >>> secrets_of("https://account/box/a.tar"), secrets_of("https://account/boxes")
    (Secrets(user='', query='sv=1&sp=r&sig=abc'), Secrets(user='', query=None))
    """
    if not _queries and not _users:
        return NOTHING
    place, ending = path_part(url)
    scheme, _, place = place.partition("://")
    user = _users.get(f"{scheme.lower()}://{place.partition('/')[0]}", "")
    found = _queries.get(url)
    if found is not None or not _queries or not is_http(url):
        return Secrets(user, found)
    while found is None and "/" in place:
        place = place.rpartition("/")[0]
        found = _queries.get(f"{scheme}://{place}{ending}") or _queries.get(f"{scheme}://{place}/{ending}")
    return Secrets(user, found)


def whole(url: str) -> str:
    """Return a plain URL with what is secret: for requests only.

    >>> whole(plain("https://user:word@server/a.tar?token=abc"))
    'https://user:word@server/a.tar?token=abc'
    """
    user, query = secrets_of(url)
    if (user, query) == NOTHING:
        return url
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if user:
        host = f"{user}@{host.rpartition('@')[2]}"
    found = f"{scheme}://{host}{slash}{path}"
    return found if query is None else f"{found.partition('?')[0]}?{query}"


def scrubbed(text: str, url: str) -> str:
    """Return a message without what is secret in a URL, and without the queries of all URLs in it.

    >>> scrubbed("GET https://h/a?token=abcdefgh failed: abcdefgh", plain("https://h/a?token=abcdefgh"))
    'GET https://h/a?... failed: ...'
    """
    user, query = secrets_of(url)
    if not user and query is None:
        return text
    text = re.sub(r"(\bhttps?://[^\s?\"'<>]*)\?[^\s\"'<>]*", r"\1?...", text)
    parts = [user, user.partition(":")[2], *(part.partition("=")[2] for part in (query or "").split("&"))]
    for value in sorted({*parts, *map(unquote_plus, parts)}, key=len, reverse=True):
        if len(value) > 5:  # shorter ones are parts of other words
            text = text.replace(value, "...")
    return text


def expired(url: str, now: datetime | None = None) -> datetime | None:
    """Return when the signature of a URL expired; None where it has not, or where nobody can say.

    >>> url = plain("https://host/b.tar?X-Amz-Date=20260102T030405Z&X-Amz-Expires=60&X-Amz-Signature=abc")
    >>> str(expired(url, datetime(2026, 2, 1, tzinfo=UTC))), expired(url, datetime(2026, 1, 1, tzinfo=UTC))
    ('2026-01-02 03:05:05+00:00', None)
    """
    query = secrets_of(url).query or ""
    pairs = (part.partition("=") for part in query.split("&"))
    values = {unquote_plus(name).lower(): unquote_plus(value) for name, _, value in pairs}
    until = _until(values)
    return until if until is not None and until < (now or datetime.now(UTC)) else None


def _until(values: dict[str, str]) -> datetime | None:
    for start in ("x-amz-", "x-goog-", "x-oss-"):
        if signed := _time(values.get(f"{start}date", "")):
            seconds = values.get(f"{start}expires", "")
            known = re.fullmatch(r"\d{1,9}", seconds) and signed.year < MAXYEAR - 100
            return signed + timedelta(seconds=int(seconds)) if known else None
    if found := _time(values.get("se", "")):
        return found
    numbers = [values.get(name, "") for name in ("expires", "expire", "expiry", "expiration", "exp")]
    numbers.append(values.get("q-sign-time", "").partition(";")[2])
    return next((datetime.fromtimestamp(int(each), UTC) for each in numbers if re.fullmatch(r"1\d{9}", each)), None)


def _time(text: str) -> datetime | None:
    for layout in _ISO:
        try:
            return datetime.strptime(text, layout).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


class KnownSecrets:
    """Takes what this process knows of signed URLs into a worker: its pickle is for a process that is being started.

    No other pickle has it: the pickle of a dataset has plain URLs.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (dict(_queries), dict(_users))


def _received(queries: dict[str, str], users: dict[str, str]) -> KnownSecrets:
    _queries.update(queries)
    _users.update(users)
    return KnownSecrets()
