from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import requests

from answers import EXPIRED, GOOD, PRICE
from crowds import together
from kis_retry import (
    KisClient,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    protect,
    unprotect,
)
from kis_retry.retry import patches
from kis_retry.testing import KisGateway
from sources import NumberedTokens


class Library:
    """Somebody else's: the answer depends on the token that it holds, and nothing goes over a wire."""

    source: NumberedTokens

    def __init__(self, source: NumberedTokens) -> None:
        self.source = source
        self.access_token = "Bearer token-0"
        self.sent: list[str] = []

    def fetch_price(self, symbol: str, country_code: str = "KR") -> dict[str, str]:
        """Ask for a price."""
        return self._ask(symbol)

    def fetch_two(self, symbol: str) -> dict[str, str]:
        self.fetch_price(symbol)
        return self.fetch_price(symbol)

    async def fetch_later(self, symbol: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return self._ask(symbol)

    def fetch_pages(self, symbol: str) -> Iterator[dict[str, str]]:
        yield self._ask(symbol)

    @property
    def fetch_count(self) -> int:
        return len(self.sent)

    def place_order(self, symbol: str) -> dict[str, str]:
        return self._ask(symbol)

    def _ask(self, _symbol: str) -> dict[str, str]:
        self.sent.append(self.access_token)
        return self.source.answer(self.access_token)


class Derived(Library):
    """It inherits what is to be protected."""


class Broker:
    """One that speaks HTTP, refreshes by itself as korea-investment-stock 0.13 does, and issues its own tokens."""

    def __init__(self, gateway: KisGateway) -> None:
        self.url, self.credentials = gateway.url, gateway.credentials
        self.access_token = ""
        self.issues = 0
        self.session = requests.Session()

    def issue_access_token(self, force: bool = False) -> Any:
        """Ask KIS, if it must be."""
        if force or not self.access_token:
            self.issues += 1
            body = {
                "grant_type": "client_credentials",
                "appkey": self.credentials.app_key,
                "appsecret": self.credentials.app_secret,
            }
            answer = self.session.post(f"{self.url}/oauth2/tokenP", json=body)
            answer.raise_for_status()
            self.access_token = f"Bearer {answer.json()['access_token']}"

    def fetch_price(self, symbol: str) -> Any:
        answer = self._get(symbol)
        if "만료" in answer["msg1"]:
            self.issue_access_token(force=True)
            answer = self._get(symbol)
        return answer

    def fetch_plainly(self, symbol: str) -> Any:
        return self._get(symbol)

    def fetch_swallowing(self, symbol: str) -> Any:
        answer = self._get(symbol)
        return answer["output"]["stck_prpr"] if answer["rt_cd"] == "0" else None

    def create_order(self, symbol: str) -> Any:
        return self.session.post(
            f"{self.url}/uapi/domestic-stock/v1/trading/order-cash", json={"PDNO": symbol}, headers=self._headers()
        ).json()

    def create_market_order(self, symbol: str) -> Any:
        return self.create_order(symbol)

    def _get(self, symbol: str) -> Any:
        return self.session.get(self.url + PRICE, params={"FID_INPUT_ISCD": symbol}, headers=self._headers()).json()

    def _headers(self) -> dict[str, str]:
        return {"authorization": self.access_token}


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    """Whatever else is protected in this process, `requests` is as it came while the test runs, and as it was after."""
    listening = patches._watchers
    _set_watchers(0)
    yield
    _set_watchers(listening)


def _set_watchers(number: int) -> None:
    while patches._watchers > number:
        patches.unwatch()
    while patches._watchers < number:
        patches.watch()


@pytest.fixture
def source() -> NumberedTokens:
    return NumberedTokens("token-")


@pytest.fixture
def library(source: NumberedTokens) -> Library:
    return Library(source)


@pytest.fixture
def library_class() -> type[Library]:
    """A class of its own for each test, so that none is left protected for the next."""
    return type("Library", (Library,), {**vars(Library)})


@pytest.fixture
def broker(gateway: KisGateway) -> Iterator[Broker]:
    made = Broker(gateway)
    with made.session:
        yield made


# What can be protected.


def test_an_object_is_protected_and_handed_back(library: Library, source: NumberedTokens) -> None:
    assert protect(library, tokens=source) is library
    assert library.fetch_price("005930") == GOOD
    assert library.sent == ["Bearer token-0", "Bearer token-1"]


def test_only_that_object_is(library: Library, source: NumberedTokens) -> None:
    other = Library(source)
    protect(library, tokens=source)
    assert other.fetch_price("005930") == EXPIRED


def test_a_class_is_protected_with_its_objects_present_and_future(
    library_class: type[Library], source: NumberedTokens
) -> None:
    present = library_class(source)
    assert protect(library_class, tokens=source) is library_class
    assert present.fetch_price("005930") == GOOD
    assert library_class(source).fetch_price("005930") == GOOD


def test_inherited_methods_count_and_the_base_class_is_left_alone(source: NumberedTokens) -> None:
    try:
        protect(Derived, tokens=source)
        assert Derived(source).fetch_price("005930") == GOOD
        assert Library(source).fetch_price("005930") == EXPIRED
    finally:
        unprotect(Derived)
    assert Derived(source).fetch_price("005930") == EXPIRED


def test_a_class_below_a_protected_one_is_protected_once(library_class: type[Library], source: NumberedTokens) -> None:
    below = type("Below", (library_class,), {})
    protect(library_class, tokens=source)
    protect(below, tokens=source)
    assert "fetch_price" not in vars(below)
    assert below(source).fetch_price("005930") == GOOD


def test_a_module_is_protected_where_its_functions_look_each_other_up(source: NumberedTokens) -> None:
    module = ModuleType("samples")
    text = (
        "def fetch(headers):\n    return answer(headers['authorization'])\ndef run(headers):\n    return fetch(headers)"
    )
    module.__dict__["answer"] = source.answer
    exec(text, module.__dict__)
    protect(module, tokens=source, methods="fetch")
    headers = {"authorization": "Bearer token-0"}
    assert module.run(headers) == GOOD
    assert headers == {"authorization": "Bearer token-1"}
    unprotect(module)
    assert module.run({"authorization": "Bearer token-0"}) == EXPIRED


def test_static_and_class_methods_stay_what_they_are(source: NumberedTokens) -> None:
    class Samples:
        @staticmethod
        def fetch_static(headers: dict[str, str]) -> dict[str, str]:
            return source.answer(headers["authorization"])

        @classmethod
        def fetch_class(cls, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
            return cls.__name__, source.answer(headers["authorization"])

    protect(Samples, tokens=source)
    assert isinstance(vars(Samples)["fetch_static"], staticmethod)
    assert isinstance(vars(Samples)["fetch_class"], classmethod)
    assert Samples.fetch_static({"authorization": "Bearer x"}) == GOOD
    assert Samples().fetch_static({"authorization": "Bearer x"}) == GOOD
    below: Any = type("Below", (Samples,), {})
    assert below.fetch_class({"authorization": "Bearer token-1"}) == ("Below", GOOD)
    unprotect(Samples)
    sample = protect(Samples(), tokens=source)
    assert sample.fetch_static({"authorization": "Bearer x"}) == GOOD
    assert sample.fetch_class({"authorization": "Bearer token-1"}) == ("Samples", GOOD)


def test_coroutine_methods_stay_coroutine_methods(library: Library, source: NumberedTokens) -> None:
    protect(library, tokens=source)
    assert inspect.iscoroutinefunction(library.fetch_later)
    assert asyncio.run(library.fetch_later("005930")) == GOOD


def test_an_object_whose_method_has_another_name_inside_is_bound_all_the_same(source: NumberedTokens) -> None:
    class Wrapped(Library):
        fetch_alias = Library.place_order
        fetch_price = lambda self, symbol, *_: self._ask(symbol)

    wrapped = protect(Wrapped(source), tokens=source)
    assert wrapped.fetch_alias("005930") == GOOD
    wrapped.access_token = "Bearer token-0"
    assert wrapped.fetch_price("005930") == GOOD


def test_functions_and_bound_methods_that_an_object_holds_are_not_bound_again(
    library: Library, source: NumberedTokens
) -> None:
    other = Library(source)
    library.__dict__["fetch_function"] = lambda headers: source.answer(headers["authorization"])
    library.__dict__["fetch_of_another"] = other.fetch_price
    protect(library, tokens=source, methods=["fetch_function", "fetch_of_another"])
    assert library.__dict__["fetch_function"]({"authorization": "Bearer token-0"}) == GOOD
    assert library.__dict__["fetch_of_another"]("005930") == GOOD
    assert other.sent == ["Bearer token-1"]  # token-0 is known to be dead by now


# Which methods.


def test_names_and_patterns_are_taken_together(library: Library, source: NumberedTokens) -> None:
    protect(library, tokens=source, methods=["place_order", "fetch_p?ice"])
    assert set(vars(library)) >= {"place_order", "fetch_price"}
    assert "fetch_two" not in vars(library)
    assert library.place_order("005930") == GOOD


@pytest.mark.parametrize("methods", ["get_*", "fetch_nothing", ["fetch_*", "get_*"], "fetch_count*"])
def test_a_pattern_that_finds_nothing_is_an_error_and_changes_nothing(
    library: Library, source: NumberedTokens, methods: str | list[str]
) -> None:
    before = dict(vars(library))
    with pytest.raises(ValueError, match=r"nothing in a Library matches methods='(get_|fetch_nothing|fetch_count)"):
        protect(library, tokens=source, methods=methods)
    assert vars(library) == before


def test_a_pattern_passes_over_generators_and_properties(library_class: type[Library], source: NumberedTokens) -> None:
    before = {name: vars(library_class)[name] for name in ("fetch_pages", "fetch_count")}
    protect(library_class, tokens=source)
    assert {name: vars(library_class)[name] for name in before} == before


def test_a_generator_named_outright_is_refused_and_changes_nothing(
    library_class: type[Library], source: NumberedTokens
) -> None:
    before = dict(vars(library_class))
    plain = requests.Session.send
    with pytest.raises(TypeError, match="generator"):
        protect(library_class, tokens=source, methods=["fetch_price", "fetch_pages"])
    assert dict(vars(library_class)) == before
    assert requests.Session.send is plain


def test_a_property_named_outright_is_refused(library: Library, source: NumberedTokens) -> None:
    with pytest.raises(TypeError, match="property"):
        protect(library, tokens=source, methods="fetch_count")


def test_a_star_leaves_alone_how_objects_are_made_and_what_a_refresh_calls(gateway: KisGateway) -> None:
    of_its_own = type("OfItsOwn", (Broker,), {})
    protect(of_its_own, methods="*")
    assert "fetch_price" in vars(of_its_own)
    assert {"__init__", "__repr__", "issue_access_token"}.isdisjoint(vars(of_its_own))
    broker = of_its_own(gateway)
    assert broker.fetch_plainly("005930")["rt_cd"] == "0"
    broker.session.close()


def test_the_issue_named_outright_is_refused(broker: Broker) -> None:
    with pytest.raises(TypeError, match="tokens="):
        protect(broker, methods="issue_access_token")


def test_an_error_names_eight_of_many_methods_and_how_many_more_there_are(source: NumberedTokens) -> None:
    many: Any = type("Many", (), {f"fetch_{letter}": lambda _: GOOD for letter in "abcdefghijkl"})
    with pytest.raises(ValueError, match=r"it has fetch_a, .*, fetch_h and 4 more$"):
        protect(many, tokens=source, methods="get_*")


def test_an_object_that_lists_more_than_it_has_is_no_problem(source: NumberedTokens) -> None:
    class Lazy(Library):
        def __dir__(self) -> list[str]:
            return [*super().__dir__(), "fetch_lazily"]

    assert protect(Lazy(source), tokens=source).fetch_price("005930") == GOOD


# Targets that cannot be changed.


def test_an_object_with_slots_is_refused_and_its_class_is_not(source: NumberedTokens) -> None:
    class Slotted:
        __slots__ = ("access_token",)

        def __init__(self) -> None:
            self.access_token = "Bearer token-0"

        def fetch_price(self) -> dict[str, str]:
            return source.answer(self.access_token)

    with pytest.raises(TypeError, match="protect its class"):
        protect(Slotted(), tokens=source)
    protect(Slotted, tokens=source)
    assert Slotted().fetch_price() == GOOD


def test_a_frozen_object_is_refused_and_left_as_it_was(source: NumberedTokens) -> None:
    class Frozen(Library):
        def __setattr__(self, name: str, value: object) -> None:
            if name.startswith(("fetch", "__")):
                raise AttributeError(f"cannot assign to {name}")
            super().__setattr__(name, value)

    frozen, plain = Frozen(source), requests.Session.send
    before = dict(vars(frozen))
    with pytest.raises(TypeError, match="cannot assign to fetch"):
        protect(frozen, tokens=source)
    assert vars(frozen) == before
    assert requests.Session.send is plain


def test_a_built_in_class_is_refused() -> None:
    with pytest.raises(TypeError, match="dict"):
        protect(dict, methods="get")


def test_something_that_is_no_source_is_refused_by_name(library: Library) -> None:
    with pytest.raises(TypeError, match=r"tokens= takes a TokenSource .* not str"):
        protect(library, tokens="eyJ0eXAi")  # type: ignore[arg-type]  # the mistake that is meant


# Twice, and back.


def test_twice_is_once(library_class: type[Library], source: NumberedTokens) -> None:
    protect(library_class, tokens=source)
    once = dict(vars(library_class))
    protect(library_class, tokens=source)
    assert dict(vars(library_class)) == once


def test_a_second_call_adds_the_methods_that_the_first_left_out(
    library_class: type[Library], source: NumberedTokens
) -> None:
    plain, before = requests.Session.send, dict(vars(library_class))
    protect(library_class, tokens=source)
    protect(library_class, tokens=source, methods=["place_order", "fetch_*"])
    assert library_class(source).place_order("005930") == GOOD
    unprotect(library_class)
    assert dict(vars(library_class)) == before
    assert requests.Session.send is plain


def test_what_is_decorated_already_is_not_decorated_again(client: KisClient, gateway: KisGateway) -> None:
    protect(client)
    assert not [name for name in vars(client) if name.startswith("fetch")]
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.refuse_calls()
    client.fetch_domestic_price("005930")
    assert gateway.counts.refused == 2


def test_signature_and_docstring_are_kept(library: Library, broker: Broker, source: NumberedTokens) -> None:
    before = inspect.signature(library.fetch_price), inspect.signature(broker.issue_access_token)
    protect(library, tokens=source)
    protect(broker, tokens=source)
    assert (inspect.signature(library.fetch_price), inspect.signature(broker.issue_access_token)) == before
    assert library.fetch_price.__doc__ == "Ask for a price."
    assert library.fetch_price.__name__ == "fetch_price"
    assert broker.issue_access_token.__doc__ == "Ask KIS, if it must be."


@pytest.mark.parametrize("kind", ["class", "derived class", "object", "module"])
def test_unprotect_leaves_everything_exactly_as_it_was(kind: str, broker: Broker, source: NumberedTokens) -> None:
    module = ModuleType("samples")
    vars(module).update(fetch_price=broker.fetch_price, issue_access_token=broker.issue_access_token)
    target: Any = {"class": Broker, "derived class": type("Below", (Broker,), {}), "object": broker, "module": module}[
        kind
    ]
    before, plain = list(vars(target).items()), requests.Session.send
    protect(target, tokens=source)
    assert list(vars(target).items()) != before
    assert requests.Session.send is not plain
    assert unprotect(target) is target
    assert list(vars(target).items()) == before
    assert requests.Session.send is plain


def test_unprotect_of_something_unprotected_does_nothing(library: Library) -> None:
    before = dict(vars(library))
    assert unprotect(library) is library
    assert unprotect(unprotect(library)) is library
    assert vars(library) == before


def test_unprotect_leaves_what_somebody_put_there_since(library: Library, source: NumberedTokens) -> None:
    protect(library, tokens=source)
    theirs = library.__dict__["fetch_two"] = lambda symbol: symbol
    unprotect(library)
    assert vars(library)["fetch_two"] is theirs
    assert "fetch_price" not in vars(library)


def test_protect_after_unprotect_protects_again(library: Library, source: NumberedTokens) -> None:
    unprotect(protect(library, tokens=source))
    assert protect(library, tokens=source).fetch_price("005930") == GOOD


# The library's own token.


def test_a_good_token_of_the_library_is_used_and_nothing_is_issued_beside_it(
    gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    broker.issue_access_token()
    held = broker.access_token
    protect(broker, tokens=manager)
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    assert broker.access_token == held
    assert gateway.counts.token_requests == 1


def test_a_library_that_makes_sure_of_its_token_inside_a_call_keeps_its_own(
    gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    class Careful(Broker):
        def fetch_price(self, symbol: str) -> Any:
            self.issue_access_token()
            return self._get(symbol)

    with requests.Session() as session:
        careful = Careful(gateway)
        careful.session = session
        careful.issue_access_token()
        protect(careful, tokens=manager)
        assert careful.fetch_price("005930")["rt_cd"] == "0"
        gateway.expire()
        assert careful.fetch_price("005930")["rt_cd"] == "0"
        assert careful.fetch_price("005930")["rt_cd"] == "0"
    assert gateway.counts == {
        "calls": 4,
        "answered": 3,
        "refused": 1,
        "token_requests": 2,
        "tokens_issued": 2,
        "token_requests_refused": 0,
    }


def test_a_library_without_a_token_gets_the_one_of_the_source(broker: Broker, manager: TokenManager) -> None:
    protect(broker, tokens=manager)
    assert broker.issue_access_token() == manager.authorization
    assert broker.access_token == manager.authorization
    assert broker.issues == 0


@pytest.mark.parametrize("form", ["Bearer {}", "{}", "bearer  {}"])
def test_the_token_comes_back_in_the_form_in_which_the_library_keeps_it(
    form: str, broker: Broker, source: NumberedTokens
) -> None:
    broker.access_token = form.format("token-0")
    protect(broker, tokens=source)
    broker.issue_access_token(force=True)
    assert broker.access_token == form.format("token-1")


def test_without_a_source_the_librarys_own_issue_is_used_once_for_all_threads(
    gateway: KisGateway, broker: Broker
) -> None:
    broker.issue_access_token()
    protect(broker, methods="fetch_plainly")
    gateway.expire()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(broker.fetch_plainly, ["005930"] * 64))
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 64
    assert broker.issues == 2


# Libraries that refresh by themselves.


def test_a_library_that_refreshes_by_itself_joins_the_one_refresh(
    gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    broker.issue_access_token()
    protect(broker, tokens=manager)
    gateway.reset_counts()
    gateway.expire_at(100)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(broker.fetch_price, ["005930"] * 400))
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 400
    assert gateway.counts.token_requests == 1
    assert broker.issues == 1


def test_a_library_that_cannot_force_is_refreshing_where_kis_refused_it(
    gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    class Plain(Broker):
        def issue_access_token(self) -> None:  # type: ignore[override]  # as mojito2 has it
            raise AssertionError("it is routed")

        def fetch_price(self, symbol: str) -> Any:
            answer = self._get(symbol)
            if answer["rt_cd"] != "0":
                self.issue_access_token()
                answer = self._get(symbol)
            return answer

    broker.__class__ = Plain
    protect(broker, tokens=manager)
    broker.issue_access_token()
    gateway.expire()
    gateway.reset_counts()
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)


def test_a_straggler_does_not_refresh_again(
    gateway: KisGateway, broker: Broker, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    class Slow(Broker):
        def _get(self, symbol: str) -> Any:
            answer = super()._get(symbol)
            if symbol == "SLOW" and answer["rt_cd"] != "0":
                refused.set()
                assert overtaken.wait(10)
            return answer

    refused, overtaken = threading.Event(), threading.Event()
    slow = Slow(gateway)
    with slow.session, ThreadPoolExecutor(1) as pool:
        slow.issue_access_token()
        protect(slow, tokens=manager)
        gateway.expire()
        gateway.reset_counts()
        began = time.monotonic()
        straggler = pool.submit(slow.fetch_price, "SLOW")
        assert refused.wait(10)
        assert slow.fetch_price("005930")["rt_cd"] == "0"
        overtaken.set()
        assert straggler.result(10)["rt_cd"] == "0"
    assert gateway.counts.token_requests == 1
    assert [event.name for event in events] == ["token_refreshed", "token_adopted"]
    assert all(0 <= (event.elapsed or 0) <= time.monotonic() - began for event in events), "each of its own step"


@pytest.mark.parametrize("watch_transport", [True, False])
def test_a_straggler_that_nobody_heard_speaks_of_the_token_it_started_with(
    watch_transport: bool, source: NumberedTokens
) -> None:
    class Own(Library):
        def issue_access_token(self, force: bool = False) -> None:
            raise AssertionError("it is routed")

        def fetch_price(self, symbol: str, country_code: str = "KR") -> dict[str, str]:
            answer = self._ask(symbol)
            if answer["rt_cd"] != "0":
                self.access_token = "Bearer token-1"  # another thread has been here
                self.issue_access_token(True)
            return self._ask(symbol)

    own = protect(Own(source), tokens=source, watch_transport=watch_transport)
    assert own.fetch_price("005930") == GOOD
    assert source.number == 1


def test_a_library_that_recovered_by_itself_is_left_alone(
    gateway: KisGateway, broker: Broker, events: list[RefreshEvent]
) -> None:
    broker.issue_access_token()
    protect(broker)
    gateway.expire()
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    assert (gateway.counts.refused, gateway.counts.calls, broker.issues) == (1, 2, 2)
    assert events == []


def test_a_token_that_the_library_did_not_recognise_as_dead_is_replaced_all_the_same(
    gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    broker.access_token = "Bearer of-another-environment"
    protect(broker, tokens=manager)
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)


def test_a_swallowed_refusal_is_heard(gateway: KisGateway, broker: Broker, manager: TokenManager) -> None:
    broker.issue_access_token()
    protect(broker, tokens=manager)
    gateway.expire()
    assert broker.fetch_swallowing("005930") is not None
    assert gateway.counts.refused == 1


def test_where_no_new_token_can_be_had_the_caller_gets_kiss_own_answer(
    gateway: KisGateway, broker: Broker, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    broker.issue_access_token()
    protect(broker, tokens=manager)
    gateway.expire()
    gateway.refuse_tokens()
    for _ in range(3):
        answer = broker.fetch_price("005930")
        assert (answer["rt_cd"], answer["msg_cd"]) == ("1", "EGW00123")
    assert gateway.counts.token_requests_refused == 1
    failures = [event for event in events if event.name == "token_refresh_failed"]
    assert {(event.error, event.msg_cd) for event in failures} == {("TokenIssueError", "EGW00103")}


def test_a_new_token_that_does_not_help_is_not_followed_by_another(
    gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    broker.issue_access_token()
    protect(broker, tokens=manager)
    gateway.refuse_calls()
    gateway.expire()
    gateway.reset_counts()
    assert broker.fetch_price("005930")["msg_cd"] == "EGW00123"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (2, 1)


def test_an_order_whose_answer_was_lost_is_not_placed_again_further_out(
    gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    broker.issue_access_token()
    protect(broker, tokens=manager, methods="create_*")
    gateway.refuse_calls(1)
    gateway.drop(times=1, reached=True)
    gateway.expire()
    with pytest.raises(requests.ConnectionError):
        broker.create_market_order("005930")
    assert len(gateway.orders) == 1


# Asked outside of any call, `issue_access_token` behaves as the library's.


def test_outside_of_a_call_it_gives_the_current_token_or_a_new_one_where_forced(
    broker: Broker, source: NumberedTokens
) -> None:
    protect(broker, tokens=source)
    broker.issue_access_token()
    assert broker.access_token == "Bearer token-1"
    broker.issue_access_token()
    assert broker.access_token == "Bearer token-1"
    broker.issue_access_token(force=True)
    assert broker.access_token == "Bearer token-2"
    broker.issue_access_token(True)
    assert broker.access_token == "Bearer token-3"


def test_outside_of_a_call_forcing_hands_out_what_others_have_renewed_already(
    broker: Broker, source: NumberedTokens
) -> None:
    protect(broker, tokens=source)
    broker.issue_access_token()
    source.number = 5
    broker.issue_access_token(force=True)
    assert broker.access_token == "Bearer token-5"


def test_outside_of_a_call_a_failure_is_the_callers(broker: Broker, source: NumberedTokens) -> None:
    protect(broker, tokens=source)
    broker.issue_access_token()
    source.error = TokenIssueError("no", code="EGW00103", retryable=False)
    with pytest.raises(TokenIssueError, match="no"):
        broker.issue_access_token(force=True)
    assert broker.access_token == "Bearer token-1"


def test_threads_that_force_at_once_get_one_new_token(gateway: KisGateway, manager: TokenManager) -> None:
    brokers = [protect(Broker(gateway), tokens=manager) for _ in range(8)]
    for broker in brokers:  # each holds it itself, so that no thread finds another's new one before it asks
        broker.issue_access_token()
    held = manager.authorization
    gateway.expire()
    gateway.reset_counts()
    together(8, lambda number: brokers[number].issue_access_token(force=True))
    assert gateway.counts.token_requests == 1
    assert {broker.access_token for broker in brokers} == {manager.authorization} != {held}
    for broker in brokers:
        unprotect(broker).session.close()


def test_switched_off_the_library_issues_as_it_always_did(gateway: KisGateway, broker: Broker) -> None:
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(enabled=False))
    protect(broker, tokens=manager)
    broker.issue_access_token()
    gateway.expire()
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    assert broker.fetch_plainly("005930")["rt_cd"] == "0"
    assert broker.issues == 2


def test_a_coroutine_issue_is_awaited_and_joins_the_one_refresh(source: NumberedTokens) -> None:
    class Later(Library):
        async def issue_access_token(self, force: bool = False) -> None:
            raise AssertionError("it is routed")

        async def fetch_later(self, symbol: str) -> dict[str, str]:
            answer = self._ask(symbol)
            await asyncio.sleep(0)
            if answer["rt_cd"] != "0":
                await self.issue_access_token(force=True)
                answer = self._ask(symbol)
            return answer

    async def many(later: Later) -> list[dict[str, str]]:
        return await asyncio.gather(*(later.fetch_later("005930") for _ in range(20)))

    later = protect(Later(source), tokens=source)
    later.access_token = "Bearer token-1"
    source.number = 1
    asyncio.run(many(later))
    source.number, later.access_token = 2, "Bearer token-1"
    assert asyncio.run(many(later)) == [GOOD] * 20
    assert source.number == 2


def test_an_async_library_whose_refresh_fails_hands_back_kiss_answer(source: NumberedTokens) -> None:
    class Later(Library):
        async def issue_access_token(self, force: bool = False) -> str:
            raise AssertionError("it is routed")

        async def fetch_later(self, symbol: str) -> dict[str, str]:
            self._ask(symbol)
            await self.issue_access_token(force=True)
            return self._ask(symbol)

    later = protect(Later(source), tokens=source, methods="fetch_later")
    source.error = TokenIssueError("no", code="EGW00103", retryable=False)
    assert asyncio.run(later.fetch_later("005930")) == EXPIRED
    assert later.sent == ["Bearer token-0"] * 2
    with pytest.raises(TokenIssueError):
        asyncio.run(later.issue_access_token(force=True))


@pytest.mark.parametrize(("enabled", "held"), [(True, "Bearer token-1"), (False, "Bearer its-own")])
def test_an_async_library_that_asks_for_a_token_gets_it_from_the_source_unless_switched_off(
    enabled: bool, held: str, source: NumberedTokens
) -> None:
    class Later(Library):
        async def issue_access_token(self) -> None:
            self.access_token = "Bearer its-own"

    later = protect(Later(source), tokens=source, policy=RetryPolicy(enabled=enabled))
    asyncio.run(later.issue_access_token())
    assert later.access_token == held


def test_an_issue_that_belongs_to_the_class_sets_the_classs_token(source: NumberedTokens) -> None:
    class Shared:
        access_token = "Bearer token-0"

        @classmethod
        def issue_access_token(cls, force: bool = False) -> None:
            raise AssertionError("it is routed")

        @classmethod
        def fetch_price(cls) -> dict[str, str]:
            return source.answer(cls.access_token)

    protect(Shared, tokens=source)
    Shared.issue_access_token(force=True)
    assert Shared.access_token == "Bearer token-1"
    Shared.access_token = "Bearer token-0"
    assert Shared.fetch_price() == GOOD
    unprotect(Shared)
    with pytest.raises(AssertionError, match="routed"):
        Shared.issue_access_token()


def test_an_issue_that_is_not_told_for_whom_is_left_alone(source: NumberedTokens) -> None:
    class Apart(Library):
        @staticmethod
        def issue_access_token() -> str:
            return "its own"

    protect(Apart, tokens=source)
    assert Apart(source).issue_access_token() == "its own"


def test_a_modules_issue_is_routed_as_an_objects_is(source: NumberedTokens) -> None:
    module = ModuleType("samples")
    text = "access_token = 'token-0'\ndef fetch(headers): ...\ndef issue_access_token(force=False): return 'its own'"
    exec(text, module.__dict__)
    before = inspect.signature(module.issue_access_token)
    protect(module, tokens=source, methods="fetch")
    assert inspect.signature(module.issue_access_token) == before
    module.issue_access_token(force=True)
    assert module.access_token == "token-1"
    unprotect(module)
    assert module.issue_access_token() == "its own"


def test_a_library_that_refreshes_and_does_not_repeat_is_repeated_for_it(gateway: KisGateway) -> None:
    class Half:
        def __init__(self, token: str) -> None:
            self.access_token = token

        def issue_access_token(self, force: bool = False) -> None:
            raise AssertionError

        def fetch_price(self, symbol: str) -> dict[str, Any]:
            headers = {"authorization": self.access_token, "tr_id": "FHKST01010100"}
            query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
            answer = requests.get(gateway.url + PRICE, headers=headers, params=query, timeout=5).json()
            if answer["rt_cd"] != "0":
                self.issue_access_token(force=True)
            return dict(answer)

    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    broker = protect(Half(manager.authorization), tokens=manager)
    gateway.expire()
    gateway.reset_counts()
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    assert (gateway.counts.calls, gateway.counts.token_requests) == (2, 1)
    unprotect(broker)


@pytest.mark.parametrize("target", ["the class", "an object"])
def test_a_protected_session_of_requests_does_not_stop_the_managers_own_request(
    target: str, gateway: KisGateway, manager: TokenManager
) -> None:
    with requests.Session() as session:
        headers = manager.headers("FHKST01010100")
        protected: Any = requests.Session if target == "the class" else session
        protect(protected, tokens=manager, methods="request")
        gateway.expire()
        gateway.reset_counts()
        try:
            with ThreadPoolExecutor(16) as pool:
                ask = lambda number: session.get(gateway.url + PRICE, params={"n": number}, headers=headers).json()
                answers = list(pool.map(ask, range(100)))
        finally:
            unprotect(protected)
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 100
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused <= 16


class Wrapper:
    """Around a broker, as CachedKoreaInvestment and RateLimitedKoreaInvestment are."""

    def __init__(self, broker: Any) -> None:
        self._calls_per_second = 15
        self._broker = broker

    def fetch_price(self, symbol: str) -> Any:
        return self._broker.fetch_price(symbol)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_wrapper_around_a_broker_is_protected_as_the_broker_is(
    layers: int, gateway: KisGateway, broker: Broker, manager: TokenManager
) -> None:
    broker.issue_access_token()
    wrapper = Wrapper(broker) if layers == 1 else Wrapper(Wrapper(broker))
    protect(wrapper, tokens=manager)
    gateway.expire()
    gateway.reset_counts()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(wrapper.fetch_price, ["005930"] * 100))
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 100
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused <= 16


@pytest.mark.parametrize(("layers", "place"), [(1, "`_broker`"), (2, "`_broker._broker`")])
def test_a_wrapper_without_a_source_says_which_object_to_protect(layers: int, place: str, broker: Broker) -> None:
    wrapper = protect(Wrapper(broker) if layers == 1 else Wrapper(Wrapper(broker)))
    with pytest.raises(TypeError, match=f"protect the broker that it wraps, its attribute {place}"):
        wrapper.fetch_price("005930")
