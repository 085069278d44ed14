"""Who asks: `Credentials`, and reading them from the environment."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from .errors import ConfigurationError
from .events import warn_once
from .settings import Environment, boolean, credential_variables, without_password
from .token import fingerprint

__all__ = ["PAPER_URL", "REAL_URL", "Credentials"]

REAL_URL = "https://openapi.koreainvestment.com:9443"
PAPER_URL = "https://openapivts.koreainvestment.com:29443"

_LOOPBACK = re.compile(r"http://([^/]*@)?(localhost|[^/@:]*\.localhost|127\.[0-9.]+|\[::1\])(:[0-9]*)?(/|$)")
_ACCOUNT = re.compile(r"([0-9]{8})-?([0-9]{2})")


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
        given: dict[str, Any] = {"app_key": app_key, "app_secret": app_secret, "account": account}
        given["base_url"] = base_url or (PAPER_URL if paper else REAL_URL)
        problem = _problem_with({name: (name, value) for name, value in given.items()})
        if problem is not None:
            del self, app_key, app_secret, account, base_url, given  # what reports an error shows the locals of frames
            raise ConfigurationError(problem)
        for name, value in given.items():
            object.__setattr__(self, name, value and value.strip())
        object.__setattr__(self, "account", self.account and _ACCOUNT.sub(r"\1-\2", self.account))
        object.__setattr__(self, "paper", bool(paper))
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        if self.base_url.startswith("http://") and not _LOOPBACK.match(self.base_url):
            warn_once("base_url_not_encrypted", base_url=without_password(self.base_url))

    @classmethod
    def from_env(cls, prefix: str = "KIS_") -> Credentials:
        """
        Read `KIS_APP_KEY`, `KIS_APP_SECRET`, `KIS_ACCOUNT_NO`, `KIS_PAPER` and `KIS_BASE_URL`.

        `KOREA_INVESTMENT_API_KEY`, `…_API_SECRET` and `…_ACCOUNT_NO` are read where the first three are missing.

        Args:
            prefix: begins these names instead of `KIS_`, for a second pair of keys. One that ends in `PAPER_`, such as
                `KIS_PAPER_` for `KIS_PAPER_APP_KEY`, means paper trading, unless `<prefix>PAPER` says otherwise.

        Raises:
            ConfigurationError: a variable is missing or cannot be used; the message names it.
        """
        environment = Environment(prefix)
        names = {**credential_variables(prefix), "base_url": (f"{prefix}BASE_URL",)}
        found = {name: setting for name, each in names.items() if (setting := environment.find(*each)) is not None}
        missing = [names[name] for name in ("app_key", "app_secret") if name not in found]
        if missing:
            first = " and ".join(variables[0] for variables in missing) + (" is" if len(missing) == 1 else " are")
            every = " and ".join(" or ".join(variables) for variables in missing)
            looked = f"{first} not set, {environment.where()}"
            raise ConfigurationError(f"{looked}: set {every} to what the KIS developer portal shows")
        problem = _problem_with({name: (setting.variable, setting.text) for name, setting in found.items()})
        if problem is not None:
            raise ConfigurationError(problem)
        paper = environment.read(boolean, "true or false", f"{prefix}PAPER")
        texts = {name: setting.text for name, setting in found.items()}
        return cls(**texts, paper=prefix.endswith("PAPER_") if paper is None else paper)

    def __reduce__(self) -> tuple[object, ...]:
        """Credentials that the environment holds are read there again, so that no secret travels to a worker."""
        with suppress(ConfigurationError):
            if Credentials.from_env() == self:
                return Credentials.from_env, ()
        make = partial(Credentials, paper=self.paper, base_url=self.base_url)
        return make, (self.app_key, self.app_secret, self.account)

    def __repr__(self) -> str:
        return f"Credentials(app_key={fingerprint(self.app_key)}, base_url={without_password(self.base_url)!r})"


def _problem_with(given: dict[str, tuple[str, object]]) -> str | None:
    """Say what is wrong with the first of these that is not usable, by the name under which it was given."""
    for field, (name, value) in given.items():
        text = value.strip() if isinstance(value, str) else ""
        if field == "base_url":
            if not re.match(r"https?://[^/\s]", text):
                takes = "an address that begins with http:// or https:// and names a host"
                return f"{name}={without_password(str(value))!r} is not usable: it takes {takes}"
        elif field == "account":
            if value is not None and not _ACCOUNT.fullmatch(text):
                return f"{name} is no account number: it takes eight digits, a hyphen and two digits, like 12345678-01"
        elif not text:
            return f"{name} must be a non-empty string, not {type(value).__name__} or blank"
        elif not (text.isascii() and text.isprintable()):
            held = "a line break, a Korean letter, a typographic quotation mark or another character unfit for a header"
            return f"{name} holds {held}; it takes printable ASCII, as the KIS developer portal shows it"
    return None
