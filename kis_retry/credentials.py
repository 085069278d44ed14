"""Who asks: `Credentials`, and reading them from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .events import warn
from .settings import PREFIX, Environment, Setting, boolean, credential_variables, without_password
from .token import fingerprint

__all__ = ["PAPER_URL", "REAL_URL", "Credentials"]

REAL_URL = "https://openapi.koreainvestment.com:9443"
PAPER_URL = "https://openapivts.koreainvestment.com:29443"

_TAKES_URL = "an address that begins with http:// or https:// and names a host"
_ACCOUNT = re.compile(r"([0-9]{8})-?([0-9]{2})")
_warned: set[str] = set()  # addresses that this process has warned of


@dataclass(frozen=True)
class Credentials:
    """
    App key, secret and account of one KIS application. `repr` shows none of them.

    An app key belongs to real or to paper trading (KIS developer portal), so does its token.

    Args:
        app_key: as the portal shows it; white space around it is taken off.
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
        problem = (
            _problem_with("app_key", app_key)
            or _problem_with("app_secret", app_secret)
            or _problem_with_account("account", account)
            or (None if _is_url(url) else f"base_url must be {_TAKES_URL}")
        )
        if problem is not None:
            # What reports an error shows the locals of its frames, too.
            del self, app_key, app_secret, account, base_url, url
            raise ConfigurationError(problem)
        object.__setattr__(self, "app_key", app_key.strip())
        object.__setattr__(self, "app_secret", app_secret.strip())
        object.__setattr__(self, "account", _with_hyphen(account))
        object.__setattr__(self, "paper", bool(paper))
        object.__setattr__(self, "base_url", url.strip().rstrip("/"))
        _warn_of_plain_http(self.base_url)

    @classmethod
    def from_env(cls, prefix: str = PREFIX) -> Credentials:
        """
        Read `KIS_APP_KEY`, `KIS_APP_SECRET`, `KIS_ACCOUNT_NO`, `KIS_PAPER` and `KIS_BASE_URL`.

        `KOREA_INVESTMENT_API_KEY`, `…_API_SECRET` and `…_ACCOUNT_NO` are read where the first three are missing.

        Args:
            prefix: begins these names instead of `KIS_`, for a second pair of keys, such as `KIS_PAPER_` for
                `KIS_PAPER_APP_KEY` and the rest. A prefix that ends in `PAPER_` means paper trading, unless
                `<prefix>PAPER` says otherwise.

        Raises:
            ConfigurationError: a variable is missing or cannot be used; the message names it.
        """
        environment = Environment(prefix)
        names = credential_variables(prefix)
        found = {name: environment.find(*variables) for name, variables in names.items()}
        problem = _problem_with_found(found, names, environment)
        if problem is not None:
            raise ConfigurationError(problem)
        base_url = environment.read(_checked_url, _TAKES_URL, f"{prefix}BASE_URL")
        paper = environment.read(boolean, "true or false", f"{prefix}PAPER")
        return cls(
            **{name: setting.text for name, setting in found.items() if setting is not None},
            paper=prefix.endswith("PAPER_") if paper is None else paper,
            base_url=base_url,
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Credentials that the environment holds are read there again, so that no secret travels to a worker."""
        try:
            if Credentials.from_env() == self:
                return Credentials.from_env, ()
        except ConfigurationError:
            pass
        make = partial(Credentials, paper=self.paper, base_url=self.base_url)
        return make, (self.app_key, self.app_secret, self.account)

    def __repr__(self) -> str:
        return f"Credentials(app_key={fingerprint(self.app_key)}, base_url={without_password(self.base_url)!r})"

    __str__ = __repr__


def _problem_with_found(
    found: dict[str, Setting | None], names: dict[str, tuple[str, ...]], environment: Environment
) -> str | None:
    """Say what is missing or cannot be used, under the names of the variables."""
    missing = [names[name] for name in ("app_key", "app_secret") if found[name] is None]
    if missing:
        first = " and ".join(variables[0] for variables in missing)
        every = " and ".join(" or ".join(variables) for variables in missing)
        return (
            f"{first} {'is' if len(missing) == 1 else 'are'} not set, {environment.where()}: "
            f"set {every} to what the KIS developer portal shows"
        )
    for name, setting in found.items():
        if setting is not None:
            check = _problem_with_account if name == "account" else _problem_with
            problem = check(setting.variable, setting.text)
            if problem is not None:
                return problem
    return None


def _problem_with(name: str, value: object) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return f"{name} must be a non-empty string, not {type(value).__name__} or blank"
    text = value.strip()
    if not (text.isascii() and text.isprintable()):
        return (
            f"{name} holds a line break, a Korean letter, a typographic quotation mark or another character that no "
            "header may carry; it takes printable ASCII, as the KIS developer portal shows it"
        )
    return None


def _problem_with_account(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and _ACCOUNT.fullmatch(value.strip())):
        return None
    return f"{name} is no account number: it takes eight digits, a hyphen and two digits, like 12345678-01"


def _with_hyphen(account: str | None) -> str | None:
    return None if account is None else _ACCOUNT.sub(r"\1-\2", account.strip())


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"https?://[^/\s]", value.strip()) is not None


def _checked_url(text: str) -> str:
    if not _is_url(text):
        raise ValueError("not an http address")
    return text


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
