"""
A program that is watched by an APM agent and protected: `python agents.py AGENT ORDER PROTECTION`.

Every call of it is refused for its token once. It fails where one is lost, takes more slots than it is sent, or is not
seen by the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import requests

from kis_retry import Credentials, RateLimiter, install, refresh_on_expired_token, retry_on_transient_error
from kis_retry.testing import KisGateway

PATH = "/uapi/domestic-stock/v1/quotations/inquire-price?FID_COND_MRKT_DIV_CODE=J&FID_INPUT_ISCD=005930"


INSTRUMENTORS = {
    "aiohttp_client": "AioHttpClientInstrumentor",
    "httpx": "HTTPXClientInstrumentor",
    "requests": "RequestsInstrumentor",
    "threading": "ThreadingInstrumentor",
    "urllib": "URLLibInstrumentor",
    "urllib3": "URLLib3Instrumentor",
}


class ElasticApm:
    """The agent of Elastic."""

    @property
    def unseen(self) -> tuple[Any, ...]:
        """Its transactions do not go along into threads."""
        return (by_a_pool,)

    def __init__(self) -> None:
        import elasticapm
        from elasticapm.transport.base import Transport

        self._agent = elasticapm
        self.spans = 0
        told = self

        class Recorder(Transport):  # type: ignore[misc]  # untyped
            def queue(self, event_type: str, data: Any, flush: bool = False) -> None:
                told.spans += event_type == "span"

        off = {"METRICS_INTERVAL": "0ms", "CENTRAL_CONFIG": False, "CLOUD_PROVIDER": False}
        self._client = elasticapm.Client({"SERVICE_NAME": "batch", "SPAN_COMPRESSION_ENABLED": False, **off})
        self._client._transport = Recorder(self._client)

    def on(self) -> None:
        self._agent.instrument()

    def off(self) -> None:
        self._agent.uninstrument()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self._client.begin_transaction("batch")
        yield
        self._client.end_transaction("batch")


class OpenTelemetry:
    """The instrumentations of OpenTelemetry."""

    unseen = ()

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        trace.set_tracer_provider(provider)
        found = {name: importlib.import_module(f"opentelemetry.instrumentation.{name}") for name in INSTRUMENTORS}
        self._instrumentors = [getattr(found[name], kind)() for name, kind in INSTRUMENTORS.items()]

    @property
    def spans(self) -> int:
        return len(self._exporter.get_finished_spans())

    def on(self) -> None:
        for instrumentor in self._instrumentors:
            instrumentor.instrument()

    def off(self) -> None:
        for instrumentor in self._instrumentors:
            instrumentor.uninstrument()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        yield


class Ddtrace:
    """The tracer of Datadog; once under our wrapper, it can only be taken off together with it."""

    @property
    def unseen(self) -> tuple[Any, ...]:
        """It has nothing for the standard library."""
        return (by_urllib,)

    NAMES = ("aiohttp", "futures", "httpx", "requests", "urllib3")

    def __init__(self) -> None:
        import ddtrace
        from ddtrace.trace import TraceFilter, tracer

        self._agent = ddtrace
        self.spans = 0
        told = self

        class Recorder(TraceFilter):  # type: ignore[misc]  # untyped
            def process_trace(self, trace: list[Any]) -> None:
                told.spans += len(trace)

        tracer.configure(trace_processors=[Recorder()])

    def on(self) -> None:
        self._agent.patch(raise_errors=True, **dict.fromkeys(self.NAMES, True))

    def off(self) -> None:
        for name in self.NAMES:
            importlib.import_module(f"ddtrace.contrib.internal.{name}.patch").unpatch()
            self._agent._monkey._PATCHED_MODULES.discard(name)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        yield


class Counting(RateLimiter):
    """A pace that counts the slots it gives."""

    slots = 0

    def reserve(self, **options: Any) -> Any:
        self.slots += 1
        return super().reserve(**options)


def by_requests(url: str, headers: dict[str, str]) -> Any:
    return requests.get(url, headers=headers, timeout=5).json()


def by_httpx(url: str, headers: dict[str, str]) -> Any:
    return httpx.get(url, headers=headers).json()


def by_urllib(url: str, headers: dict[str, str]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return json.load(answer)


def by_a_pool(url: str, headers: dict[str, str]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(by_requests, url, headers).result()


async def by_httpx_async(url: str, headers: dict[str, str]) -> Any:
    async with httpx.AsyncClient() as client:
        return (await client.get(url, headers=headers)).json()


async def by_aiohttp(url: str, headers: dict[str, str]) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return await answer.json()


WAYS: tuple[Callable[..., Any], ...] = (by_requests, by_httpx, by_urllib, by_a_pool, by_httpx_async, by_aiohttp)


class Program:
    """Calls KIS in each way, over an expiry each time."""

    def __init__(self, agent: Any, protection: str, gateway: KisGateway) -> None:
        self._agent = agent
        self._gateway = gateway
        who = gateway.credentials
        self._headers = {"appkey": who.app_key, "appsecret": who.app_secret, "tr_id": "FHKST01010100"}
        self._limiter = Counting(Credentials(who.app_key, who.app_secret, base_url=gateway.url), rate=1000)
        self._is_decorated = protection == "decorated"
        if not self._is_decorated:
            install(rate=0)

    def use(self, when: str, *, seen: bool) -> None:
        """Call once in each way."""
        for way in WAYS:
            self._gateway.expire()
            self._gateway.reset_counts()
            slots, spans = self._limiter.slots, self._agent.spans
            with self._agent.watching():
                answer = self._call(way)
            where = f"{way.__name__}, {when}"
            assert answer["rt_cd"] == "0", f"{where}: {answer}"
            assert self._gateway.counts.refused == 1, f"{where}: {self._gateway.counts}"
            taken = self._limiter.slots - slots
            assert taken == (2 if self._is_decorated else 0), f"{where}: {taken} slots"
            told = self._agent.spans - spans
            assert (told > 0) == seen or way in self._agent.unseen, f"{where}: {told} spans"

    def _call(self, way: Callable[..., Any]) -> Any:
        call = way
        if self._is_decorated:
            call = retry_on_transient_error(limiter=self._limiter)(refresh_on_expired_token(way))
        headers = {**self._headers, "authorization": f"Bearer {self._gateway.current_token}"}
        answer = call(f"{self._gateway.url}{PATH}", headers)
        return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer


def main(name: str, order: str, protection: str) -> None:
    agent: Any = {"elastic-apm": ElasticApm, "opentelemetry": OpenTelemetry, "ddtrace": Ddtrace}[name]()
    if order == "before":
        agent.on()
    with KisGateway() as gateway:
        program = Program(agent, protection, gateway)
        program.use("at first", seen=order == "before")
        for when in ("put on", "put on twice"):
            agent.on()
            program.use(when, seen=True)
        if name == "ddtrace" and order == "before":
            return
        agent.off()
        program.use("taken off", seen=False)
        agent.on()
        program.use("put on again", seen=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
