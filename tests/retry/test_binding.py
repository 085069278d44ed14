"""Where a call keeps its token: found in whatever place and form, and put back in the same."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections import OrderedDict, UserDict
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime, timezone
from inspect import Parameter
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from kis_retry import AccessToken, MemoryTokenStore, TokenManager, refresh_on_expired_token
from kis_retry.retry.binding import Arguments, CallbackLocation, NoLocation, TokenLocation, binding_of, in_form_of
from kis_retry.testing import KisGateway

quick = settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

EXPIRY = datetime(2026, 11, 24, tzinfo=timezone.utc)
OLD, NEW = AccessToken("eyJold.b2xk.b2xk", EXPIRY), AccessToken("eyJnew.bmV3.bmV3", EXPIRY)
NAMES = ("authorization", "access_token", "token")


class Probe:
    """A function with any signature; it gives back what it was called with, by name."""

    def __init__(self, *parameters: Parameter) -> None:
        self.__signature__ = inspect.Signature(list(parameters))

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


def location_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenLocation:
    return binding_of(function, None).find(args, kwargs)[0]


def rebind(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    return location_of(function, args, kwargs).write(args, kwargs, NEW)


class Call(NamedTuple):
    """A function, and a call of it whose argument `name` holds `held`."""

    function: Probe
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str
    held: Any

    def location(self) -> TokenLocation:
        return location_of(self.function, self.args, self.kwargs)

    def received(self, arguments: Arguments) -> Any:
        """What the function gets as the argument in question."""
        return self._flat(arguments)[self.name]

    def others(self, arguments: Arguments) -> list[tuple[str, int]]:
        """The identity of every other argument."""
        return [(name, id(value)) for name, value in self._flat(arguments).items() if name != self.name]

    def _flat(self, arguments: Arguments) -> dict[str, Any]:
        got = self.function(*arguments[0], **arguments[1])
        return {**{name: value for name, value in got.items() if name != "options"}, **got.get("options", {})}


KINDS = st.sampled_from(
    [
        ("position", Parameter.POSITIONAL_ONLY),
        ("position", Parameter.POSITIONAL_OR_KEYWORD),
        ("keyword", Parameter.POSITIONAL_OR_KEYWORD),
        ("keyword", Parameter.KEYWORD_ONLY),
        ("keyword", Parameter.VAR_KEYWORD),
        ("default", Parameter.POSITIONAL_OR_KEYWORD),
        ("default", Parameter.KEYWORD_ONLY),
    ]
)


@st.composite
def calls(draw: st.DrawFn, name: str, held: Any) -> Call:
    """A call that holds `held` as `name`, given in any way that Python knows, amid other arguments."""
    given_by, kind = draw(KINDS)
    leading = [f"a{number}" for number in range(draw(st.integers(0, 2)))]
    trailing = draw(st.booleans()) and kind is not Parameter.VAR_KEYWORD
    before = Parameter.POSITIONAL_ONLY if kind is Parameter.POSITIONAL_ONLY else Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter(other, before) for other in leading]
    args: tuple[Any, ...] = tuple(object() for _ in leading)
    kwargs: dict[str, Any] = {}
    if kind is not Parameter.VAR_KEYWORD:
        default = held if given_by == "default" else draw(st.sampled_from([Parameter.empty, None]))
        parameters.append(Parameter(name, kind, default=default))
    if trailing:
        after = Parameter.KEYWORD_ONLY if kind is Parameter.KEYWORD_ONLY else Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(Parameter("market", after, default="J"))
    if kind is Parameter.VAR_KEYWORD or draw(st.booleans()):
        parameters.append(Parameter("options", Parameter.VAR_KEYWORD))
        kwargs["timeout"] = 3.5
    if given_by == "position":
        args = (*args, held)
        if trailing and draw(st.booleans()):
            args = (*args, "Q")
    elif given_by == "keyword":
        kwargs = {name: held, **kwargs} if draw(st.booleans()) else {**kwargs, name: held}
    return Call(Probe(*parameters), args, kwargs, name, held)


# -- headers

LETTERS = [st.sampled_from([letter, letter.upper()]) for letter in "authorization"]
SPELLINGS = st.tuples(*LETTERS).map("".join)
OTHER_HEADERS = st.dictionaries(
    st.sampled_from(["appkey", "AppSecret", "tr_id", "custtype", "content-type", "X-Authorization", "authorization2"]),
    st.sampled_from(["P", "FHKST01010100", "application/json", ""]),
    max_size=4,
)
FOUND = st.sampled_from([OLD.bearer, OLD.value, f"bearer {OLD.value}", f"  {OLD.bearer} ", "Bearer ", "", " "])
MAPPINGS: list[Callable[[dict[str, str]], Mapping[str, str]]] = [
    dict,
    OrderedDict,
    UserDict,
    CaseInsensitiveDict,
    httpx.Headers,
    MappingProxyType,
]


def _plain(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Every header but the one in question."""
    return {key: value for key, value in headers.items() if key.lower() != "authorization"}


def _authorizations(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in headers.items() if key.lower() == "authorization"}


@quick
@given(st.data(), st.sampled_from(MAPPINGS), OTHER_HEADERS, st.none() | SPELLINGS, FOUND)
def test_headers_get_the_new_token_wherever_they_come_from(
    data: st.DataObject,
    mapping: Callable[[dict[str, str]], Mapping[str, str]],
    others: dict[str, str],
    spelling: str | None,
    found: str,
) -> None:
    headers = mapping({**others, **({spelling: found} if spelling else {})})
    untouched, keys = dict(headers), list(_authorizations(headers))
    call = data.draw(calls("headers", headers))
    place, arguments = call.location(), (call.args, call.kwargs)
    neighbours = call.others(arguments)
    assert place.read(*arguments) == (found if spelling else "")

    after = place.write(*arguments, NEW)

    received = call.received(after)
    assert place.read(*after) == NEW.bearer
    assert _authorizations(received) == dict.fromkeys(keys or ["authorization"], NEW.bearer)
    assert _plain(received) == _plain(untouched)
    assert call.others(after) == neighbours
    if isinstance(headers, MutableMapping):
        assert received is headers
        assert after == arguments
    else:
        assert dict(headers) == untouched


def test_a_loop_that_reuses_its_headers_has_the_new_token_at_once() -> None:
    def fetch(symbol: str, headers: dict[str, str]) -> None: ...

    headers = {"Authorization": OLD.bearer, "tr_id": "FHKST01010100"}
    rebind(fetch, ("005930",), {"headers": headers})
    assert headers == {"Authorization": NEW.bearer, "tr_id": "FHKST01010100"}


def test_headers_left_to_their_default_are_the_functions_own_dict() -> None:
    shared = {"authorization": OLD.bearer}

    def fetch(symbol: str, headers: dict[str, str] = shared) -> None: ...

    args, kwargs = rebind(fetch, ("005930",), {})
    assert (args, kwargs) == (("005930",), {})
    assert shared == {"authorization": NEW.bearer}


def test_every_spelling_in_one_dict_is_renewed() -> None:
    def fetch(headers: dict[str, str]) -> None: ...

    headers = {"authorization": OLD.bearer, "Authorization": OLD.bearer, "AUTHORIZATION": ""}
    rebind(fetch, (headers,), {})
    assert set(headers.values()) == {NEW.bearer}
    assert len(headers) == 3


def test_headers_of_bytes_stay_bytes() -> None:
    def fetch(headers: dict[bytes, bytes]) -> None: ...

    headers = {b"appkey": b"PS", b"Authorization": OLD.bearer.encode(), b"tr_id": b"X"}
    place = location_of(fetch, (headers,), {})
    assert place.read((headers,), {}) == OLD.bearer
    place.write((headers,), {}, NEW)
    assert headers == {b"appkey": b"PS", b"Authorization": NEW.bearer.encode(), b"tr_id": b"X"}
    assert place.read((headers,), {}) == NEW.bearer


@pytest.mark.parametrize("odd", [None, 5, ["Bearer x"], b"\xff\xfe", OLD])
def test_an_entry_that_is_no_text_is_replaced(odd: Any) -> None:
    def fetch(headers: dict[Any, Any]) -> None: ...

    headers = {5: "five", "Authorization": odd}
    place = location_of(fetch, (headers,), {})
    place.read((headers,), {})
    place.write((headers,), {}, NEW)
    assert headers[5] == "five"
    assert place.read((headers,), {}) == NEW.bearer


@pytest.mark.parametrize("nothing", [None, "headers", [("authorization", "x")], 0])
def test_headers_that_are_no_mapping_are_no_place(nothing: Any) -> None:
    def fetch(headers: Any = None, token: str = OLD.bearer) -> None: ...

    assert rebind(fetch, (nothing,), {}) == ((nothing,), {"token": NEW.bearer})


# -- a token as an argument

FORMS = st.sampled_from(
    [
        (OLD.value, NEW.value),
        (OLD.bearer, NEW.bearer),
        (f"bearer {OLD.value}", f"bearer {NEW.value}"),
        (f"BEARER  {OLD.value}", f"BEARER  {NEW.value}"),
        (f" {OLD.value}\n", f" {NEW.value}\n"),
        (OLD, NEW),
    ]
)


@quick
@given(st.data(), st.sampled_from(NAMES), FORMS)
def test_an_argument_gets_the_new_token_in_the_form_of_the_old(
    data: st.DataObject, name: str, form: tuple[Any, Any]
) -> None:
    old, new = form
    call = data.draw(calls(name, old))
    place, arguments = call.location(), (call.args, call.kwargs)
    neighbours, before = call.others(arguments), dict(call.kwargs)
    assert place.read(*arguments) == (OLD.bearer if old is OLD else old)

    after = place.write(*arguments, NEW)

    assert call.received(after) == new
    assert type(call.received(after)) is type(old)
    assert place.read(*after) == (NEW.bearer if old is OLD else new)
    assert call.others(after) == neighbours
    assert (call.received(arguments), call.kwargs) == (old, before)


@pytest.mark.parametrize("empty", [None, "", "  ", "Bearer ", 5, [OLD.value]])
@pytest.mark.parametrize("name", NAMES)
def test_an_argument_without_a_token_is_no_place(name: str, empty: Any) -> None:
    function = Probe(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None))
    assert isinstance(location_of(function, (empty,), {}), NoLocation)
    assert isinstance(location_of(function, (), {name: empty}), NoLocation)


@quick
@given(st.text(" \t", max_size=2), st.sampled_from(["", "Bearer ", "bearer\t"]), st.text(" \n", max_size=2))
def test_the_form_is_everything_around_the_token(before: str, scheme: str, after: str) -> None:
    assert in_form_of(f"{before}{scheme}{OLD.value}{after}", NEW) == f"{before}{scheme}{NEW.value}{after}"


@pytest.mark.parametrize("found", [None, "", "  ", 5, object()])
def test_an_empty_place_gets_what_the_header_takes(found: Any) -> None:
    assert in_form_of(found, NEW) == NEW.bearer


# -- an attribute of the first argument


class Broker:
    """As mojito2 and korea-investment-stock keep it."""

    def __init__(self, access_token: Any) -> None:
        self.access_token = access_token
        self.api_key = "key"

    def fetch(self, symbol: str) -> Any:
        return self.access_token


class OnTheClass:
    access_token = ""


class Slotted:
    __slots__ = ("access_token",)

    def __init__(self, access_token: Any) -> None:
        self.access_token = access_token


class WithSetter:
    def __init__(self, access_token: Any) -> None:
        self._kept = access_token

    @property
    def access_token(self) -> Any:
        return self._kept

    @access_token.setter
    def access_token(self, value: Any) -> None:
        self._kept = value


class WithoutSetter:
    """A property that only looks at a source, as `KisClient` has it."""

    @property
    def access_token(self) -> str:
        raise AssertionError("nobody looked")

    def fetch(self, symbol: str) -> None: ...


@quick
@given(
    FORMS,
    st.sampled_from([Broker, Slotted, WithSetter, lambda token: SimpleNamespace(access_token=token)]),
    st.booleans(),
)
def test_an_attribute_gets_the_new_token_in_the_form_of_the_old(
    form: tuple[Any, Any], make: Callable[[Any], Any], by_keyword: bool
) -> None:
    def fetch(broker: Any, symbol: str = "005930") -> None: ...

    old, new = form
    broker = make(old)
    arguments: Arguments = ((), {"broker": broker}) if by_keyword else ((broker,), {})
    place = location_of(fetch, *arguments)
    assert place.read(*arguments) == (OLD.bearer if old is OLD else old)
    assert place.write(*arguments, NEW) == arguments
    assert broker.access_token == new
    assert place.read(*arguments) == (NEW.bearer if old is OLD else new)


@pytest.mark.parametrize("empty", [None, "", "Bearer "])
def test_an_empty_attribute_is_a_place_to_fill(empty: Any) -> None:
    broker = Broker(empty)
    place = location_of(Broker.fetch, (broker, "005930"), {})
    assert place.read((broker, "005930"), {}) == ""
    place.write((broker, "005930"), {}, NEW)
    assert broker.access_token.strip() == NEW.bearer
    assert vars(broker) == {"access_token": broker.access_token, "api_key": "key"}


def test_an_attribute_of_the_class_is_set_on_the_object() -> None:
    broker = OnTheClass()
    rebind(lambda self: None, (broker,), {})
    assert (broker.access_token, OnTheClass.access_token) == (NEW.bearer, "")


def test_a_property_without_a_setter_is_no_place() -> None:
    broker = WithoutSetter()
    assert isinstance(location_of(WithoutSetter.fetch, (broker, "005930"), {}), NoLocation)


@pytest.mark.parametrize("first", ["005930", None, 5, {"access_token": OLD.bearer}, [], (), b"x", object()])
def test_a_first_argument_without_the_attribute_is_no_place(first: Any) -> None:
    def fetch(symbol: Any) -> None: ...

    assert isinstance(location_of(fetch, (first,), {}), NoLocation)


def test_an_attribute_of_another_argument_is_no_place() -> None:
    def fetch(symbol: str, broker: Broker) -> None: ...

    assert isinstance(location_of(fetch, ("005930", Broker(OLD.bearer)), {}), NoLocation)


# -- one place before another


def test_the_places_are_asked_in_their_order() -> None:
    def fetch(
        broker: Any, token: Any = None, access_token: Any = None, authorization: Any = None, headers: Any = None
    ) -> None: ...

    broker = Broker("on the broker")
    held: dict[str, Any] = {
        "headers": {"authorization": "in headers"},
        "authorization": "in authorization",
        "access_token": "in access_token",
        "token": "in token",
    }
    found = []
    while held:
        found.append(location_of(fetch, (broker,), held).read((broker,), held))
        del held[next(iter(held))]
    found.append(location_of(fetch, (broker,), {}).read((broker,), {}))
    assert found == ["in headers", "in authorization", "in access_token", "in token", "on the broker"]


def test_headers_without_the_entry_are_a_place_before_a_token_argument() -> None:
    def fetch(headers: dict[str, str], token: str) -> None: ...

    headers: dict[str, str] = {}
    assert rebind(fetch, (headers, OLD.value), {}) == ((headers, OLD.value), {})
    assert headers == {"authorization": NEW.bearer}


def test_bind_comes_before_everything() -> None:
    def fetch(broker: Broker, headers: dict[str, str]) -> None: ...

    given_to: list[AccessToken] = []
    broker, headers = Broker(OLD.bearer), {"authorization": OLD.bearer}
    place = binding_of(fetch, given_to.append).find((broker, headers), {})[0]
    assert isinstance(place, CallbackLocation)
    assert place.read((broker, headers), {}) == ""
    assert place.write((broker, headers), {}, NEW) == ((broker, headers), {})
    assert given_to == [NEW]
    assert (broker.access_token, headers["authorization"]) == (OLD.bearer, OLD.bearer)


def test_a_function_without_any_place_is_left_as_it_is() -> None:
    def fetch(symbol: str, market: str = "J") -> None: ...

    arguments: Arguments = (("005930",), {"market": "Q"})
    place = location_of(fetch, *arguments)
    assert isinstance(place, NoLocation)
    assert place.read(*arguments) == ""
    assert place.write(*arguments, NEW) == arguments


@pytest.mark.parametrize("name", ["headers", *NAMES])
def test_a_tuple_of_positional_arguments_is_not_taken_for_the_argument_of_that_name(name: str) -> None:
    function = Probe(Parameter(name, Parameter.VAR_POSITIONAL))
    assert isinstance(location_of(function, (OLD.bearer, {"authorization": OLD.bearer}), {}), NoLocation)


def test_an_argument_by_keyword_alone_is_not_sought_among_the_positional_ones() -> None:
    def fetch(symbol: str, *more: str, token: str = OLD.value) -> None: ...

    args = ("005930", "000660", "035420")
    assert location_of(fetch, args, {}).read(args, {}) == OLD.value
    assert rebind(fetch, args, {}) == (args, {"token": NEW.value})


def test_a_keyword_that_the_function_does_not_take_is_no_place() -> None:
    def fetch(symbol: str) -> None: ...

    assert isinstance(location_of(fetch, ("005930",), {"headers": {"authorization": OLD.bearer}}), NoLocation)


# -- other callables


def test_a_bound_method_and_a_partial_are_read_as_they_are_called() -> None:
    broker = Broker(OLD.bearer)

    def fetch(kept: Broker, symbol: str, headers: dict[str, str]) -> None: ...

    headers = {"authorization": OLD.bearer}
    assert rebind(functools.partial(fetch, broker), ("005930", headers), {}) == (("005930", headers), {})
    assert headers == {"authorization": NEW.bearer}
    assert isinstance(location_of(broker.fetch, ("005930",), {}), NoLocation)


def test_a_callable_without_a_signature_takes_what_comes_by_keyword() -> None:
    class Opaque:
        __signature__ = "none"

        def __call__(self, *args: Any, **kwargs: Any) -> None: ...

    headers: dict[str, str] = {}
    assert location_of(Opaque(), (), {"headers": headers}).write((), {"headers": headers}, NEW) == (
        (),
        {"headers": headers},
    )
    assert headers == {"authorization": NEW.bearer}
    broker = Broker(OLD.bearer)
    rebind(Opaque(), (broker,), {})
    assert broker.access_token == NEW.bearer


def test_the_first_argument_is_found_however_it_is_given() -> None:
    def fetch(broker: Any = "by default") -> None: ...

    read = binding_of(fetch, None)
    assert [read.first((1,), {}), read.first((), {"broker": 2}), read.first((), {})] == [1, 2, "by default"]
    assert binding_of(lambda: None, None).first((), {}) is None


@pytest.mark.parametrize("value", ["e", "r", "Bear"])
def test_a_token_that_is_a_part_of_the_word_bearer_is_found_behind_it(value: str) -> None:
    assert in_form_of(f"Bearer {value}", NEW) == NEW.bearer


def test_a_positional_only_argument_left_to_its_default_is_given_by_position() -> None:
    def with_token(symbol: str, token: str = "Bearer old", /) -> str:
        return token

    def with_headers(symbol: str, headers: Any = MappingProxyType({"authorization": "old"}), /) -> str:
        return str(headers["authorization"])

    for function in (with_token, with_headers):
        place = location_of(function, ("005930",), {})
        args, kwargs = place.write(("005930",), {}, NEW)
        assert function(*args, **kwargs) == NEW.bearer


def test_a_property_of_a_class_that_is_the_first_argument_stays() -> None:
    class Client:
        @property
        def access_token(self) -> str:
            return "Bearer x"

    def fetch(cls: type, symbol: str) -> None: ...

    before = Client.access_token
    location_of(fetch, (Client, "005930"), {}).write((Client, "005930"), {}, NEW)
    assert Client.access_token is before


def test_a_slot_that_is_not_filled_yet_reads_as_nothing() -> None:
    class Slotted:
        __slots__ = ("access_token",)

    def fetch(broker: object) -> None: ...

    broker = Slotted()
    assert location_of(fetch, (broker,), {}).read((broker,), {}) == ""


def test_a_broker_that_cannot_be_written_to_still_gets_its_first_answer() -> None:
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        access_token: str | None = None

    with KisGateway() as gateway:
        manager = TokenManager(gateway.credentials, store=MemoryTokenStore())

        @refresh_on_expired_token(tokens=manager)
        def fetch(broker: Frozen) -> dict[str, str]:
            return {"rt_cd": "1", "msg_cd": "EGW00122"}

        assert fetch(Frozen())["msg_cd"] == "EGW00122"
