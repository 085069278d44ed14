"""
Runs the batch with and without the decorator on a KIS of its own, and draws what became of it as `docs/batch.svg`.

    pip install kis-retry
    python make_picture.py [TARGET] [--symbols N]

The batch asks for 11,780 US symbols and then for 5,000 domestic ones, one by one, and aborts after five identical
failures in a row. The token dies at US symbol 11,776, the fifth from their end; so it does in a smaller batch. The
picture holds no times, so the same run draws the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kis_retry import KisClient, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.testing import KisGateway

OVERSEAS, DOMESTIC = 11_780, 5_000
IN_A_ROW = 5  # identical failures after which the batch gives up

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
    .death { stroke: #59636e; stroke-dasharray: 5 4; }
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
      .death { stroke: #9198a1; }
      .never { fill: #9198a1; fill-opacity: 0.12; }
      .with { stroke: #388bfd; }
      .without { stroke: #f0883e; }
      .says-with { fill: #58a6ff; }
      .says-without { fill: #f0883e; }
    }
"""


class Run(NamedTuple):
    """`answered[n]`: symbols answered when n had been asked for. `failure`: what the batch gave up on."""

    answered: list[int]
    failure: str | None
    tokens_issued: int

    @property
    def asked(self) -> int:
        return len(self.answered) - 1


def run_batch(overseas: int, domestic: int, *, protected: bool) -> Run:
    """Ask for every symbol until all are done or too many fail in a row."""
    answered, failure, row = [0], None, 0
    with KisGateway() as gateway:
        gateway.expire_at(dies_at(overseas))
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(enabled=protected))
        with KisClient(tokens=tokens) as client:
            for answer in ask(client, overseas, domestic):
                good = answer["rt_cd"] == "0"
                row = 0 if good else row + 1 if answer["msg1"] == failure else 1
                failure = None if good else answer["msg1"]
                answered.append(answered[-1] + good)
                if row == IN_A_ROW:
                    break
        return Run(answered, failure, gateway.counts.tokens_issued)


def ask(client: KisClient, overseas: int, domestic: int) -> Iterator[dict[str, Any]]:
    """The answers, one by one."""
    for number in range(1, overseas + 1):
        yield client.fetch_price_detail_oversea(f"US{number:05d}")
    for number in range(1, domestic + 1):
        yield client.fetch_domestic_price(f"{number:06d}")


def dies_at(overseas: int) -> int:
    """At which US symbol the token dies."""
    return overseas - IN_A_ROW + 1


def corners(answered: list[int]) -> Iterator[tuple[int, int]]:
    """The points at which the line changes its direction."""
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
        return " ".join(f"{self.x(asked)},{self.y(count)}" for asked, count in corners(run.answered))


def draw(unprotected: Run, protected: Run, overseas: int) -> str:
    """The picture, as SVG."""
    total, stop, end = protected.asked, unprotected.asked, unprotected.answered[-1]
    scale, death = Scale(total), dies_at(overseas)
    title = f"{total:,} symbols, and a token that dies at US symbol {death:,}"
    described = (
        f"Symbols answered over symbols asked. With the decorator all {protected.answered[-1]:,} are answered, with "
        f"{protected.tokens_issued} tokens. Without it the batch stops at symbol {stop:,}, after {IN_A_ROW} times "
        f"“{unprotected.failure}”, with {end:,} answered."
    )
    success = f"with the decorator: {protected.answered[-1]:,} answered, {protected.tokens_issued - 1} refresh"
    before = f'x="{scale.x(death) - 8}" text-anchor="end"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d">',
        f'<title id="t">{title}</title>',
        f'<desc id="d">{described}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="36">{title}</text>',
        *axes(scale, f"symbols asked: {overseas:,} US, then {total - overseas:,} KR"),
        f'<path class="never" d="M{scale.x(stop)},{TOP}H{scale.x(total)}V{FLOOR}H{scale.x(stop)}z"/>',
        f'<path class="death" d="M{scale.x(death)},{TOP}V{FLOOR}"/>',
        f'<text class="quiet" {before} y="{TOP + 16}">the token expires</text>',
        f'<polyline class="with" points="{scale.line(protected)}"/>',
        f'<polyline class="without" points="{scale.line(unprotected)}"/>',
        f'<path class="without" d="M{scale.x(stop) - 7},{scale.y(end) - 7}l14,14m0,-14l-14,14"/>',
        f'<text class="says-with" {before} y="{TOP + 44}">{success}</text>',
        *failure(scale, stop, unprotected.failure),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def axes(scale: Scale, asked: str) -> Iterator[str]:
    yield f'<text class="quiet" x="{LEFT}" y="58">symbols answered</text>'
    yield f'<text class="quiet" x="{WIDTH - RIGHT}" y="{HEIGHT - 20}" text-anchor="end">{asked}</text>'
    for quarter in range(5):
        count = scale.total * quarter / 4
        x, y, label = scale.x(count), scale.y(count), f"{round(count):,}"
        yield f'<path class="{"grid" if quarter else "axis"}" d="M{LEFT},{y}H{WIDTH - RIGHT}"/>'
        yield f'<text class="quiet" x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{label}</text>'
        yield f'<text class="quiet" x="{x}" y="{FLOOR + 22}" text-anchor="middle">{label}</text>'


def failure(scale: Scale, stop: int, message: str | None) -> Iterator[str]:
    said = {
        f"without: stopped at {stop:,}": "says-without",
        f"{IN_A_ROW} × {message}": "quiet",
        f"{scale.total - stop:,} symbols never asked for": "quiet",
    }
    for row, (text, name) in enumerate(said.items()):
        y = scale.y(scale.total * 0.42) + 20 * row
        yield f'<text class="{name}" x="{WIDTH - RIGHT - 8}" y="{y}" text-anchor="end">{text}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the batch with and without the decorator.")
    parser.add_argument("target", nargs="?", type=Path, default=Path(__file__).parents[1] / "docs" / "batch.svg")
    parser.add_argument("--symbols", type=int, default=OVERSEAS + DOMESTIC)
    arguments = parser.parse_args()
    overseas = round(arguments.symbols * OVERSEAS / (OVERSEAS + DOMESTIC))
    domestic = arguments.symbols - overseas
    unprotected, protected = (run_batch(overseas, domestic, protected=choice) for choice in (False, True))
    arguments.target.write_text(draw(unprotected, protected, overseas), "utf-8")
    for name, run in (("unprotected", unprotected), ("protected", protected)):
        print(f"{name}: {run.asked:,} asked for, {run.answered[-1]:,} answered, {run.tokens_issued} tokens issued")


if __name__ == "__main__":
    main()
