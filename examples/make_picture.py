"""
Run the batch with and without the decorators on a KIS of its own, and draw what became of it as `docs/batch.svg`.

    pip install kis-retry
    python make_picture.py [TARGET] [--symbols N]

The batch asks for 11,780 US symbols and then for 5,000 domestic ones, one by one, and aborts after five identical
failures in a row. KIS refuses calls within its limit (EGW00201) and drops connections. The token expires at US symbol
11,776, the fifth from their end, while the token endpoint is away; at domestic symbol 2,500 the API is away. So it is
in a smaller batch. The picture holds no times, and the dice have a seed, so the same run draws the same file. Beside
TARGET the same picture is drawn in Korean (`docs/batch.ko.svg`).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import requests

from kis_retry import KisClient, MemoryTokenStore, RateLimiter, ResponseError, RetryPolicy, TokenManager
from kis_retry.testing import KisGateway

OVERSEAS, DOMESTIC = 11_780, 5_000
IN_A_ROW = 5  # identical failures after which the batch gives up
REFUSED, DROPPED = 0.05, 0.005  # shares of the calls
AWAY = 0.5  # seconds
SEED = 748
PACE = 1_000  # calls a second; how fast the batch is does not show

WIDTH, HEIGHT = 880, 440
LEFT, RIGHT, TOP, FLOOR = 84, 40, 84, 368

STYLE = """
    svg { color-scheme: light dark; font-family: system-ui, -apple-system, "Segoe UI", "Noto Sans KR", sans-serif; }
    .card { fill: #ffffff; stroke: #d0d7de; }
    text { fill: #1f2328; font-size: 14px; }
    .title { font-size: 18px; font-weight: 600; }
    .quiet { fill: #59636e; font-size: 13px; }
    .grid { stroke: #e4e8ec; }
    .axis { stroke: #818b98; }
    .mark { stroke: #59636e; stroke-dasharray: 5 4; }
    .never { fill: #59636e; fill-opacity: 0.08; }
    .with, .without { fill: none; stroke-linecap: round; stroke-linejoin: round; }
    .with { stroke: #0969da; stroke-width: 6; }
    .without { stroke: #bc4c00; stroke-width: 2.5; }
    .says-with { fill: #0969da; font-weight: 600; }
    .says-without { fill: #bc4c00; font-weight: 600; }
    @media (prefers-color-scheme: dark) {
      .card { fill: #0d1117; stroke: #3d444d; }
      text { fill: #f0f6fc; }
      .quiet { fill: #9198a1; }
      .grid { stroke: #21262d; }
      .axis { stroke: #656c76; }
      .mark { stroke: #9198a1; }
      .never { fill: #9198a1; fill-opacity: 0.12; }
      .with { stroke: #388bfd; }
      .without { stroke: #f0883e; }
      .says-with { fill: #58a6ff; }
      .says-without { fill: #f0883e; }
    }
"""


WORDS = {
    "en": {
        "title": "{total:,} symbols, and a token that expires at US symbol {death:,}",
        "described": "Symbols answered over symbols asked, while KIS refuses {refused:g} % of the calls within its "
        "limit and {dropped:g} % of the connections drop. With the decorators all {answered:,} are answered, with "
        "{tokens} tokens, though the token endpoint is away as the token expires, and the API later. Without them the "
        "batch stops at symbol {stop:,}, after {in_a_row} times “{failure}”, with {end:,} answered.",
        "answered": "symbols answered",
        "asked": "symbols asked: {overseas:,} US, then {domestic:,} KR",
        "expires": "the token expires, and its endpoint is away",
        "away": "the API is away",
        "with": "with the decorators: {answered:,} answered, {refreshes} refresh",
        "repeated": "{limited:,} × EGW00201, {drops:,} dropped connections: called again",
        "without": "without: stopped at {stop:,}",
        "lost": "{lost:,} lost before: EGW00201, drops",
        "never": "{never:,} symbols never asked for",
    },
    "ko": {
        "title": "{total:,}개 종목, 미국 종목 {death:,}번째에서 만료되는 토큰",
        "described": "조회한 종목 수에 따른 응답받은 종목 수. 한도 안에서도 호출의 {refused:g}%가 거절되고 "
        "연결의 {dropped:g}%가 끊깁니다. 데코레이터가 있으면, 토큰이 만료되는 순간 토큰 발급이 멈추고 나중에 API가 "
        "멈춰도, 토큰 {tokens}개로 {answered:,}개 전부 응답받습니다. 없으면 “{failure}”가 {in_a_row}번 이어져 "
        "{stop:,}번째 종목에서 중단되고, 응답은 {end:,}개뿐입니다.",
        "answered": "응답받은 종목 수",
        "asked": "조회한 종목 수: 미국 {overseas:,}개, 이어서 국내 {domestic:,}개",
        "expires": "토큰이 만료되고 토큰 발급도 멈춤",
        "away": "API가 멈춤",
        "with": "데코레이터가 있으면: {answered:,}개 응답, 토큰 갱신 {refreshes}회",
        "repeated": "EGW00201 {limited:,}회, 연결 끊김 {drops:,}회: 모두 다시 호출",
        "without": "없으면: {stop:,}번째에서 중단",
        "lost": "그 전에 {lost:,}개 실패: EGW00201, 연결 끊김",
        "never": "{never:,}개는 조회하지 못함",
    },
}


class Run(NamedTuple):
    """
    What became of a batch.

    Attributes:
        answered: `answered[n]`: symbols answered when n had been asked for.
        failure: what the batch gave up on.
        tokens_issued: how many.
        faults_met: as the gateway counted them.
    """

    answered: list[int]
    failure: str | None
    tokens_issued: int
    faults_met: dict[str, int]

    @property
    def asked(self) -> int:
        return len(self.answered) - 1


def run_batch(overseas: int, domestic: int, *, protected: bool) -> Run:
    """Ask for every symbol until all are done or too many fail in a row."""
    answered, failure, row = [0], None, 0
    with KisGateway(seed=SEED) as gateway:
        store, policy = MemoryTokenStore(), RetryPolicy(enabled=protected)
        tokens = TokenManager(gateway.credentials, store=store, policy=policy)
        limiter = RateLimiter(gateway.credentials, rate=PACE, store=store)
        with KisClient(tokens=tokens, limiter=limiter) as client:
            tokens.token()  # before the dice are thrown, of which a token request takes one, too
            for reason in ask(client, gateway, overseas, domestic):
                row = 0 if reason is None else row + 1 if reason == failure else 1
                failure = reason
                answered.append(answered[-1] + (reason is None))
                if row == IN_A_ROW:
                    break
        return Run(answered, failure, gateway.counts.tokens_issued, gateway.faults_met)


def ask(client: KisClient, gateway: KisGateway, overseas: int, domestic: int) -> Iterator[str | None]:
    """Yield for one symbol after the other what is wrong with its answer; None where it is good."""
    misbehave(gateway)
    for number in range(1, overseas + 1):
        if number == expires_at(overseas):
            gateway.heal()  # so that nothing comes between five refusals of the token, as in the real batch
            gateway.outage(AWAY, "tokens")
            gateway.expire()
        yield failure_of(client.fetch_price_detail_oversea, f"US{number:05d}")
    misbehave(gateway)
    for number in range(1, domestic + 1):
        if number == away_at(domestic):
            gateway.outage(AWAY, "calls")
        yield failure_of(client.fetch_domestic_price, f"{number:06d}")


def misbehave(gateway: KisGateway) -> None:
    gateway.refuse_calls("EGW00201", share=REFUSED)
    gateway.drop(share=DROPPED)


def failure_of(fetch: Callable[[str], dict[str, Any]], symbol: str) -> str | None:
    try:
        answer = fetch(symbol)
    except (requests.RequestException, ResponseError) as error:
        return type(error).__name__
    return None if answer["rt_cd"] == "0" else str(answer["msg1"])


def expires_at(overseas: int) -> int:
    """Return at which US symbol the token expires."""
    return overseas - IN_A_ROW + 1


def away_at(domestic: int) -> int:
    """Return at which domestic symbol the API is away."""
    return (domestic + 1) // 2


def corners(answered: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the points at which the line changes its direction."""
    for asked, count in enumerate(answered):
        if asked in (0, len(answered) - 1) or answered[asked + 1] - count != count - answered[asked - 1]:
            yield asked, count


class Scale(NamedTuple):
    """Where a number of symbols is in the picture."""

    total: int

    def x(self, asked: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * asked / self.total, 1)

    def y(self, answered: float) -> float:
        return round(FLOOR - (FLOOR - TOP) * answered / self.total, 1)

    def line(self, run: Run) -> str:
        points = (f"{self.x(asked)},{self.y(count)}" for asked, count in corners(run.answered))
        return " ".join(dict.fromkeys(points))


def draw(unprotected: Run, protected: Run, overseas: int, language: str = "en") -> str:
    """Return the picture as SVG; `language` is one of `WORDS`."""
    total, stop, end = protected.asked, unprotected.asked, unprotected.answered[-1]
    said = words(unprotected, protected, overseas, language)
    scale = Scale(total)
    expiry, away = scale.x(expires_at(overseas)), overseas + away_at(total - overseas)
    label, outage, stopped = expiry - 8, scale.x(away), scale.x(stop)
    root = f'xmlns="http://www.w3.org/2000/svg" xml:lang="{language}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'<svg {root} role="img" aria-labelledby="t d">',
        f'<title id="t">{said["title"]}</title>',
        f'<desc id="d">{said["described"]}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        text("title", LEFT, 36, said["title"], "start"),
        text("quiet", LEFT, 58, said["answered"], "start"),
        text("quiet", WIDTH - RIGHT, HEIGHT - 20, said["asked"], "end"),
        *axes(scale),
        f'<path class="never" d="M{stopped},{TOP}H{scale.x(total)}V{FLOOR}H{stopped}z"/>',
        f'<path class="mark" d="M{expiry},{TOP}V{FLOOR}"/>',
        f'<path class="mark" d="M{outage},{TOP}V{scale.y(away)}"/>',
        text("quiet", label, TOP + 16, said["expires"], "end"),
        text("quiet", outage - 8, TOP + 16, said["away"], "end"),
        f'<polyline class="with" points="{scale.line(protected)}"/>',
        f'<polyline class="without" points="{scale.line(unprotected)}"/>',
        f'<path class="without" d="M{stopped - 7},{scale.y(end) - 7}l14,14m0,-14l-14,14"/>',
        text("says-with", label, TOP + 40, said["with"], "end"),
        text("quiet", label, TOP + 60, said["repeated"], "end"),
        text("says-without", label, FLOOR - 72, said["without"], "end"),
        text("quiet", label, FLOOR - 52, f"{IN_A_ROW} × {unprotected.failure}", "end"),
        text("quiet", label, FLOOR - 32, said["lost"], "end"),
        text("quiet", scale.x((stop + total) / 2), FLOOR - 52, said["never"], "middle"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def words(unprotected: Run, protected: Run, overseas: int, language: str) -> dict[str, str]:
    """Return what the picture says, by the names of `WORDS`."""
    total, stop, end = protected.asked, unprotected.asked, unprotected.answered[-1]
    facts = {
        "total": total,
        "overseas": overseas,
        "domestic": total - overseas,
        "death": expires_at(overseas),
        "answered": protected.answered[-1],
        "tokens": protected.tokens_issued,
        "refreshes": protected.tokens_issued - 1,
        "refused": 100 * REFUSED,
        "dropped": 100 * DROPPED,
        "limited": protected.faults_met.get("EGW00201", 0),
        "drops": protected.faults_met.get("dropped", 0),
        "stop": stop,
        "end": end,
        "in_a_row": IN_A_ROW,
        "failure": unprotected.failure,
        "lost": stop - end - IN_A_ROW,
        "never": total - stop,
    }
    return {name: pattern.format(**facts) for name, pattern in WORDS[language].items()}


def text(name: str, x: float, y: float, said: str, anchor: str) -> str:
    return f'<text class="{name}" x="{x}" y="{y}" text-anchor="{anchor}">{said}</text>'


def axes(scale: Scale) -> Iterator[str]:
    for quarter in range(5):
        count = scale.total * quarter / 4
        x, y, label = scale.x(count), scale.y(count), f"{round(count):,}"
        yield f'<path class="{"grid" if quarter else "axis"}" d="M{LEFT},{y}H{WIDTH - RIGHT}"/>'
        yield text("quiet", LEFT - 10, y + 4, label, "end")
        yield text("quiet", x, FLOOR + 22, label, "middle")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the batch with and without the decorators.")
    parser.add_argument("target", nargs="?", type=Path, default=Path(__file__).parents[1] / "docs" / "batch.svg")
    parser.add_argument("--symbols", type=int, default=OVERSEAS + DOMESTIC)
    arguments = parser.parse_args()
    logging.getLogger("kis_retry").addHandler(logging.NullHandler())  # it would warn of the endpoint that is away
    overseas = round(arguments.symbols * OVERSEAS / (OVERSEAS + DOMESTIC))
    domestic = arguments.symbols - overseas
    unprotected, protected = (run_batch(overseas, domestic, protected=choice) for choice in (False, True))
    for language, suffix in (("en", ".svg"), ("ko", ".ko.svg")):
        target = arguments.target.with_suffix(suffix)
        target.write_text(draw(unprotected, protected, overseas, language), "utf-8")
    for name, run in (("unprotected", unprotected), ("protected", protected)):
        print(f"{name}: {run.asked:,} asked for, {run.answered[-1]:,} answered, {run.tokens_issued} tokens issued")


if __name__ == "__main__":
    main()
