"""The two values everything else passes around: who asks (`Credentials`) and what it gets (`AccessToken`)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timezone

from ..errors import ConfigurationError

__all__ = ["PAPER_URL", "REAL_URL", "YEARS", "AccessToken", "Credentials", "bare", "fingerprint"]

REAL_URL = "https://openapi.koreainvestment.com:9443"
PAPER_URL = "https://openapivts.koreainvestment.com:29443"

YEARS = range(1970, 2200)
"""Further out, date arithmetic overflows."""

_SENDABLE = re.compile(r"[!-~]+")
_BEARER = re.compile(r"\s*bearer\s+", re.IGNORECASE)


def fingerprint(secret: str) -> str:
    """Eight hex digits of a SHA-256: tells two secrets apart in a log and gives neither away."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def bare(value: str) -> str:
    """The token itself, without "Bearer " (in any case) and surrounding white space."""
    if value.startswith("Bearer "):
        return value[7:].strip()
    return _BEARER.sub("", value, count=1).strip() if _BEARER.match(value) else value.strip()


@dataclass(frozen=True, repr=False)
class AccessToken:
    """
    A token of KIS and the instant it dies. `repr` and `str` show the fingerprint alone.

    Args:
        value: the token without "Bearer " (KIS: at most 350 characters).
        expires_at: an aware datetime; KIS's own stamp is Seoul wall-clock time without a zone.

    Raises:
        ValueError: the value is empty or could break out of a header line, or `expires_at` is naive.
    """

    value: str
    expires_at: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not _SENDABLE.fullmatch(self.value):
            raise ValueError("a token is a non-empty string of printable ASCII characters without spaces")
        if not isinstance(self.expires_at, datetime) or self.expires_at.tzinfo is None:
            raise ValueError(f"expires_at must be a datetime that knows its zone, not {self.expires_at!r}")
        if self.expires_at.year not in YEARS:
            raise ValueError(f"expires_at must lie in the years {YEARS.start} to {YEARS.stop - 1}")
        # Not fields: derived once, since every call reads them.
        object.__setattr__(self, "_bearer", f"Bearer {self.value}")
        object.__setattr__(self, "_expires", self.expires_at.timestamp())

    @property
    def bearer(self) -> str:
        """What the `authorization` header takes: "Bearer …"."""
        return self._bearer  # type: ignore[attr-defined, no-any-return]  # set in __post_init__, past the frozen door

    @property
    def expires(self) -> float:
        """`expires_at` as seconds since the epoch."""
        return self._expires  # type: ignore[attr-defined, no-any-return]  # as above

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of a SHA-256: the only form of a token that may be logged."""
        return fingerprint(self.value)

    def __repr__(self) -> str:
        until = self.expires_at.astimezone(timezone.utc).isoformat(timespec="seconds")
        return f"AccessToken({self.fingerprint}, expires_at={until})"

    __str__ = __repr__


@dataclass(frozen=True, repr=False, init=False)
class Credentials:
    """
    App key, secret and account of one KIS application. `repr` shows none of them.

    An app key belongs to real or to paper trading (KIS developer portal), so does its token.

    Args:
        app_key: as the portal shows it.
        app_secret: as the portal shows it.
        account: "12345678-01"; only orders and balances need one.
        paper: the paper-trading host instead of the real one.
        base_url: another host altogether (a test gateway, a proxy); wins over `paper`.

    Raises:
        ConfigurationError: one of them is empty or of a wrong kind; the message names it and shows no value.
    """

    app_key: str
    app_secret: str
    account: str | None
    paper: bool
    base_url: str

    def __init__(
        self,
        app_key: str,
        app_secret: str,
        account: str | None = None,
        *,
        paper: bool = False,
        base_url: str | None = None,
    ) -> None:
        url = base_url or (PAPER_URL if paper else REAL_URL)
        if not isinstance(url, str) or not re.match(r"https?://[^/\s]", url.strip()):
            raise ConfigurationError("base_url must begin with http:// or https:// and name a host")
        object.__setattr__(self, "app_key", _required("app_key", app_key))
        object.__setattr__(self, "app_secret", _required("app_secret", app_secret))
        object.__setattr__(self, "account", _required("account", account) if account is not None else None)
        object.__setattr__(self, "paper", bool(paper))
        object.__setattr__(self, "base_url", url.strip().rstrip("/"))

    @classmethod
    def from_env(cls) -> Credentials:
        """
        Read `KIS_APP_KEY`, `KIS_APP_SECRET`, `KIS_ACCOUNT_NO`, `KIS_PAPER` and `KIS_BASE_URL`.

        `KOREA_INVESTMENT_API_KEY`, `…_API_SECRET` and `…_ACCOUNT_NO` are read where the first three are missing.

        Raises:
            ConfigurationError: a variable is missing or cannot be read; the message names it.
        """
        from ..environment import credentials_from_env

        return credentials_from_env()

    def __reduce__(self) -> tuple[object, ...]:
        """Credentials that the environment holds are read there again, so that no secret travels to a worker."""
        try:
            if Credentials.from_env() == self:
                return Credentials.from_env, ()
        except ConfigurationError:
            pass
        return _rebuild, (self.app_key, self.app_secret, self.account, self.paper, self.base_url)

    def __repr__(self) -> str:
        host = re.sub(r"//.*@", "//***@", self.base_url)
        return f"Credentials(app_key={fingerprint(self.app_key)}, base_url={host!r})"

    __str__ = __repr__


def _rebuild(app_key: str, app_secret: str, account: str | None, paper: bool, base_url: str) -> Credentials:
    return Credentials(app_key, app_secret, account, paper=paper, base_url=base_url)


def _required(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a non-empty string, not {type(value).__name__} or blank")
    if not value.strip().isprintable():
        raise ConfigurationError(f"{name} holds a line break or another character that no header may carry")
    return value.strip()
