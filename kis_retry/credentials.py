"""Who asks: `Credentials`, and reading them from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .events import warn
from .settings import CREDENTIAL_VARIABLES, Environment, boolean, without_password
from .token import fingerprint

__all__ = ["PAPER_URL", "REAL_URL", "Credentials", "credentials_from_env"]

REAL_URL = "https://openapi.koreainvestment.com:9443"
PAPER_URL = "https://openapivts.koreainvestment.com:29443"


_warned: set[str] = set()  # addresses that this process has warned of


@dataclass(frozen=True)
class Credentials:
    """
    App key, secret and account of one KIS application. `repr` shows none of them.

    An app key belongs to real or to paper trading (KIS developer portal), so does its token.

    Args:
        app_key: as the portal shows it.
        app_secret: as the portal shows it.
        account: "12345678-01"; only orders and balances need one.
        paper: the paper-trading host instead of the real one.
        base_url: another host altogether (a test gateway, a proxy); wins over `paper`. With `http://` the secret
            travels for everybody to read: one warning, except for this machine itself.

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
        _warn_of_plain_http(self.base_url)

    @classmethod
    def from_env(cls) -> Credentials:
        """
        Read `KIS_APP_KEY`, `KIS_APP_SECRET`, `KIS_ACCOUNT_NO`, `KIS_PAPER` and `KIS_BASE_URL`.

        `KOREA_INVESTMENT_API_KEY`, `…_API_SECRET` and `…_ACCOUNT_NO` are read where the first three are missing.

        Raises:
            ConfigurationError: a variable is missing or cannot be read; the message names it.
        """
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
        return f"Credentials(app_key={fingerprint(self.app_key)}, base_url={without_password(self.base_url)!r})"

    __str__ = __repr__


def _rebuild(app_key: str, app_secret: str, account: str | None, paper: bool, base_url: str) -> Credentials:
    return Credentials(app_key, app_secret, account, paper=paper, base_url=base_url)


def _warn_of_plain_http(url: str) -> None:
    if not url.startswith("http://") or url in _warned or _is_loopback(url):
        return
    _warned.add(url)
    warn("base_url_not_encrypted", base_url=without_password(url))


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _required(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a non-empty string, not {type(value).__name__} or blank")
    text = value.strip()
    if not (text.isascii() and text.isprintable()):
        raise ConfigurationError(
            f"{name} holds a line break, a typographic quotation mark or another character that no header may carry; "
            "it takes printable ASCII, as the KIS developer portal shows it"
        )
    return text


def credentials_from_env() -> Credentials:
    """What `Credentials.from_env()` promises."""
    environment = Environment()
    found = {name: environment.find(*variables) for name, variables in CREDENTIAL_VARIABLES.items()}
    missing = [CREDENTIAL_VARIABLES[name][0] for name in ("app_key", "app_secret") if found[name] is None]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: take them from the KIS developer "
            "portal and set KIS_APP_KEY and KIS_APP_SECRET (or KOREA_INVESTMENT_API_KEY and …_API_SECRET) "
            "in the environment or in a .env file"
        )
    texts = {name: setting.text if setting else None for name, setting in found.items()}
    base_url = environment.read(_url, "an address that begins with http:// or https://", "KIS_BASE_URL")
    paper = environment.read(boolean, "true or false", "KIS_PAPER")
    return Credentials(
        texts["app_key"] or "",
        texts["app_secret"] or "",
        texts["account"],
        paper=bool(paper),
        base_url=base_url,
    )


def _url(text: str) -> str:
    if not re.match(r"https?://[^/\s]", text):
        raise ValueError("not an http address")
    return text
