"""`protect` and `unprotect`: the methods of what somebody else wrote, in place."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import requests

from answers import EXPIRED, GOOD, PRICE
from kis_retry import RateLimiter, RefreshEvent, RetryPolicy, TokenManager, protect, unprotect
from kis_retry.testing import KisGateway
from outcomes import scripted
from sources import NumberedTokens

QUERY = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}


class Broker:
    """Somebody's library: it keeps a token, and knows nothing of expiry."""

    def __init__(self, url: str, app_key: str, app_secret: str, token: str) -> None:
        self.url, self.app_key, self.app_secret = url, app_key, app_secret
        self.access_token = f"Bearer {token}"

    def price(self, symbol: str) -> Any:
        """Ask for a price."""
        return self._get(symbol)

    def several(self, symbols: list[str]) -> list[Any]:
        return [self.price(symbol) for symbol in symbols]

    def pages(self, symbol: str) -> Iterator[Any]:
        yield self._get(symbol)

    @staticmethod
    def doubled(number: int) -> int:
        return 2 * number

    @classmethod
    def named(cls) -> str:
        return cls.__name__

    @property
    def host(self) -> str:
        return self.url

    samsung = functools.partialmethod(price, "005930")

    def _get(self, symbol: str) -> Any:
        headers = {"authorization": self.access_token, "appkey": self.app_key, "appsecret": self.app_secret}
        headers["tr_id"] = "FHKST01010100"
        return requests.get(self.url + PRICE, params=QUERY, headers=headers, timeout=5).json()


class Slotted:
    __slots__ = ("answer",)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ask(self, token: str) -> Any:
        return self.answer(token)


def broker_of(gateway: KisGateway, kind: type[Broker] = Broker) -> Broker:
    who = gateway.credentials
    return kind(gateway.url, who.app_key, who.app_secret, gateway.issue_elsewhere()["access_token"])


@pytest.fixture
def broker(gateway: KisGateway) -> Broker:
    return broker_of(gateway)


def is_protected(target: Broker, gateway: KisGateway) -> bool:
    gateway.expire()
    return bool(target.price("005930")["rt_cd"] == "0")


def test_an_object_needs_nothing_but_its_requests(broker: Broker, gateway: KisGateway) -> None:
    assert protect(broker) is broker
    gateway.expire()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(broker.price, ["005930"] * 24))
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 24
    assert gateway.counts.token_requests == 1
    assert broker.access_token.endswith(gateway.current_token or "none")


def test_only_that_object_is_protected(broker: Broker, gateway: KisGateway) -> None:
    protect(broker)
    assert not is_protected(broker_of(gateway), gateway)


def test_a_class_is_protected_with_its_objects_present_and_future(broker: Broker, gateway: KisGateway) -> None:
    class Derived(Broker):
        pass

    present = broker_of(gateway, Derived)
    assert protect(Derived) is Derived
    assert is_protected(present, gateway)
    assert is_protected(broker_of(gateway, Derived), gateway)
    assert not is_protected(broker, gateway)  # of the class above it


def test_a_module_is_protected_where_its_functions_look_each_other_up(broker: Broker, gateway: KisGateway) -> None:
    module = ModuleType("library")
    module.__dict__.update(broker=broker)
    exec("def price(symbol):\n    return broker._get(symbol)\ndef two():\n    return price('1')", module.__dict__)
    protect(module)
    gateway.expire()
    assert module.two()["rt_cd"] == "0"


class Agent:
    """An object that hands on the methods of another one inside."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        if name == "_broker":
            raise AttributeError(name)
        return getattr(self._broker, name)


@pytest.mark.parametrize("kind", ["object", "class"])
def test_methods_that_an_object_hands_on_from_another_are_protected(
    kind: str, broker: Broker, gateway: KisGateway
) -> None:
    agent = Agent(broker)
    target: Any = agent if kind == "object" else Agent
    for _ in range(2):
        protect(target)
    gateway.expire()
    assert agent.price("005930")["rt_cd"] == "0"
    assert agent.url == broker.url
    assert gateway.counts.refused == 1
    copied = copy.copy(agent)
    unprotect(target)
    gateway.expire()
    assert agent.price("005930")["rt_cd"] == "1"
    assert copied.price("005930")["rt_cd"] == ("0" if kind == "object" else "1")


def test_static_and_class_methods_properties_and_partial_methods_stay_what_they_are(broker: Broker) -> None:
    protect(broker)
    assert (broker.doubled(2), broker.named(), broker.host) == (4, "Broker", broker.url)
    assert broker.samsung()["rt_cd"] == "0"
    assert inspect.signature(broker.price) == inspect.signature(Broker("", "", "", "").price)
    assert broker.price.__doc__ == "Ask for a price."


# -- which methods


def test_by_default_no_function_is_called_again_and_a_named_one_is(events: list[RefreshEvent]) -> None:
    tokens = NumberedTokens()
    tokens.number = 2
    asked: list[str] = []

    def ask(token: str) -> Any:
        asked.append(token)
        return tokens.answer(f"Bearer {token}")

    assert protect(Slotted(ask), tokens=tokens).ask("t1") == EXPIRED
    assert [event.name for event in events] == ["call_given_up"]
    assert protect(Slotted(ask), tokens=tokens, methods="ask").ask("t1") == GOOD
    assert asked == ["t1", "t1", "t2"]


@pytest.mark.parametrize("methods", ["several", "s*", ["pric?", "several"]])
def test_names_and_patterns(broker: Broker, gateway: KisGateway, methods: Any) -> None:
    broker = copy.copy(protect(broker, methods=methods if isinstance(methods, str) else iter(methods)))
    gateway.expire()
    assert broker.several(["005930"])[0]["rt_cd"] == "0"
    assert is_protected(broker, gateway) is ("pric?" in methods)


def test_what_matches_nothing_is_refused_with_what_there_is(broker: Broker) -> None:
    with pytest.raises(ValueError, match=r"nothing in .*Broker.* matches methods='nothing\*'; it has .*price"):
        protect(broker, methods=["nothing*", "several"])
    assert type(broker) is Broker


@pytest.mark.parametrize("name", ["pages", "host", "samsung", "url"])
def test_what_cannot_be_repeated_is_refused_where_it_is_named(broker: Broker, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        protect(broker, methods=name)


@pytest.mark.parametrize("option", [{"tokens": TokenManager}, {"limiter": 18}, {"policy": 1}, {"bind": "headers"}])
def test_an_argument_of_the_wrong_kind_is_refused_and_changes_nothing(broker: Broker, option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(option))}="):
        protect(broker, **option)
    assert type(broker) is Broker


@pytest.mark.parametrize("target", [{}, str])
def test_what_lets_nothing_be_replaced_is_refused(target: Any) -> None:
    with pytest.raises(TypeError, match="does not let its methods be replaced"):
        protect(target)


# -- twice, and undone


@pytest.mark.parametrize("make", [lambda ask: SimpleNamespace(ask=ask), Slotted])
def test_a_second_call_puts_the_later_arguments_in_force(make: Any) -> None:
    asked = scripted(EXPIRED)
    target = make(asked)
    for retries in (3, 1):
        protect(target, tokens=NumberedTokens(), policy=RetryPolicy(max_retries=retries), methods="ask")
    target.ask(token="t1")
    assert asked.calls == 2


def test_what_others_put_around_a_protected_function_stays() -> None:
    module, calls = ModuleType("prices"), list[str]()
    module.__dict__["fetch"] = lambda: "the price"
    inner = protect(module).fetch

    @functools.wraps(inner)
    def timed() -> str:
        calls.append("timed")
        return str(inner())

    module.__dict__["fetch"] = timed
    assert protect(module).fetch() == "the price"
    assert calls == ["timed"]


def test_where_there_is_nothing_to_protect_it_is_said() -> None:
    with pytest.raises(ValueError, match="no public methods"):
        protect(ModuleType("empty"))


@pytest.mark.parametrize("kind", ["object", "class", "module", "namespace"])
def test_unprotect_leaves_everything_as_it_was(broker: Broker, kind: str) -> None:
    class Derived(Broker):
        price = Broker.price

    module = ModuleType("library")
    module.price = broker.price  # type: ignore[attr-defined]
    targets: dict[str, Any] = {
        "object": broker,
        "class": Derived,
        "module": module,
        "namespace": SimpleNamespace(price=broker.price),
    }
    target = targets[kind]
    before, of_class = dict(vars(target)), type(target)
    protect(protect(target))
    assert unprotect(target) is target
    assert dict(vars(target)) == before
    assert type(target) is of_class
    assert unprotect(target) is target


def test_unprotect_leaves_what_somebody_put_there_since() -> None:
    target = SimpleNamespace(ask=scripted(GOOD))
    protect(target)
    target.ask = mine = lambda: "mine"
    assert unprotect(target).ask is mine


# -- copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda target: pickle.loads(pickle.dumps(target))])
def test_a_copy_is_protected_and_acts_for_itself(broker: Broker, gateway: KisGateway, copied: Any) -> None:
    protect(broker)
    twin = copied(broker)
    assert isinstance(twin, Broker)
    assert type(twin).__name__ == "Broker"
    twin.access_token = "Bearer dead"
    assert is_protected(twin, gateway)
    assert twin.access_token != "Bearer dead"
    assert broker.access_token != twin.access_token
    assert type(unprotect(copied(broker))) is Broker


def test_copies_share_the_source_and_the_pace(broker: Broker, manager: TokenManager, gateway: KisGateway) -> None:
    limiter = RateLimiter(gateway.credentials, rate=0)
    twin = copy.deepcopy(protect(broker, tokens=manager, limiter=limiter))
    assert is_protected(twin, gateway)
    assert is_protected(broker, gateway)
    assert manager.token().value == gateway.current_token
    pickle.loads(pickle.dumps(protect(broker, tokens=manager, limiter=limiter)))
