"""What is made of a record, and of nothing else: its .md, its .html, and the table in README.md."""

import html
import json
import math
import pathlib
import re
import sys
import textwrap
from dataclasses import dataclass
from statistics import median

from peers import FLOOR, OURS, ROOT

README = ROOT / "README.md"
MARKERS = ("<!-- peers -->", "<!-- /peers -->")
MORE_IS_BETTER = ("/s",)
LOG_SPAN = 30  # values that span more are drawn on a log scale


@dataclass
class Target:
    """Our median, at most (or at least, where more is better) so many times the best of the others."""

    figure: str
    best: float
    bare: float | None = None
    """And at most so many times the bare loop."""
    either: bool = False
    """Whichever of the two allows more."""


TARGETS = [
    Target("idle, bytes a connection", 0.25),
    Target("handshake, us of CPU", 0.75),
    *(Target(f"echo {size}, us of CPU", 1.0, 1.05, either=True) for size in ("64 B", "1 KB", "64 KB")),
    Target("broadcast 1/s, us of CPU a delivery", 0.95, 1.1),
    Target("broadcast 300/s, deliveries/s", 3),
    Target("echo beside broadcasts, p99 us", 0.05),
    Target("storm, s to the last", 0.9),
    Target("heartbeat, us of CPU", 0.9),
]

# README's table, and what its rows are called there.
SHORT = {
    "idle, bytes a connection": "user-space memory of an idle connection, bytes",
    "handshake, us of CPU": "CPU of a handshake, us",
    "echo 64 B, us of CPU": "CPU of an echo of 64 B, us",
    "echo 1 KB, us of CPU": "the same, 1 KB",
    "echo 64 KB, us of CPU": "the same, 64 KB",
    "broadcast 1/s, us of CPU a delivery": "CPU of a delivery, 1 message a second to {connections:,}, us",
    "broadcast 300/s, deliveries/s": "deliveries a second, 300 messages a second to {connections:,}",
    "broadcast 300/s, us of CPU a delivery": "CPU of a delivery there, us",
    "echo beside broadcasts, p99 us": "p99 of an echo beside broadcasts to {connections:,}, us",
    "storm, s to the last": "{storm:,} drop at once: until the last is back, s",
    "heartbeat, us of CPU": "CPU of a ping and its pong, us",
}

# Measured elsewhere, on another day, and thus in no table.
ELSEWHERE = [
    "Centrifugo and nbio cannot be installed by this. Measured elsewhere, on another day: an idle connection takes 31 KB of "
    "user-space memory in Centrifugo, and 1.5 KB in nbio.",
]
ALWAYS = [
    f"`{FLOOR}` is not a server: it calls `recv` and `send`, checks nothing, queues nothing and limits nothing. It is the floor "
    "that ratios are taken to, and none of the others.",
    "The rates of broadcasts rise only for who kept up with the rate before. Where the generator was "
    "the limit, deliveries a second say what it could take in; what then tells servers apart is CPU a delivery.",
    "shutdown: throng closes everybody with 1001, spread over its `--drain`, 5 s by default, and exits 0 as soon as they are "
    "gone. The others do at SIGTERM whatever their library or runtime does by default, which for most is to die: fast, and cut "
    "off. No shutdown code was written for them.",
    "stalled and shutdown are measured in the first round only.",
]


# --- Figures. ---


def show(value: float) -> str:
    return f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def spread(values: list[float]) -> str:
    return show(median(values)) + (f" ({show(min(values))}..{show(max(values))})" if len(values) > 1 else "")


def more_is_better(figure: str) -> bool:
    return figure.endswith(MORE_IS_BETTER)


def best(figure: str, by_peer: dict[str, list[float]]) -> tuple[str, float] | None:
    """The best of the others, and its median."""
    others = {name: median(values) for name, values in by_peer.items() if name not in (OURS, FLOOR)}
    if not others:
        return None
    name = (max if more_is_better(figure) else min)(others, key=others.__getitem__)
    return name, others[name]


def to_best(figure: str, by_peer: dict[str, list[float]]) -> float | None:
    found = best(figure, by_peer)
    return median(by_peer[OURS]) / found[1] if OURS in by_peer and found and found[1] else None


def to_bare(by_peer: dict[str, list[float]]) -> float | None:
    bare = median(by_peer.get(FLOOR, [0]))
    return median(by_peer[OURS]) / bare if OURS in by_peer and bare else None


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def met(target: Target, figure: dict[str, list[float]]) -> bool | None:
    """None: there is nothing to judge by."""
    ours, bare = to_best(target.figure, figure), to_bare(figure)
    if ours is None:
        return None
    if more_is_better(target.figure):
        return ours >= target.best
    judged = [ours <= target.best] + ([bare <= target.bare] if target.bare and bare is not None else [])
    return any(judged) if target.either else all(judged)


def targets(record: dict) -> list[tuple[str, str, str, str]]:
    """Figure, target, ours, and whether it was met."""
    rows = []
    for target in TARGETS:
        figure = record["figures"].get(target.figure, {})
        wanted = f"{'≥' if more_is_better(target.figure) else '≤'} {target.best:g} of the best"
        ours = f"{ratio(to_best(target.figure, figure)) or 'nothing'} of the best"
        if target.bare:
            wanted += f"{' or' if target.either else ' and'} ≤ {target.bare:g} of the bare loop"
            ours += f", {ratio(to_bare(figure)) or 'nothing'} of the bare loop"
        verdict = {True: "met", False: "missed", None: "not measured"}[met(target, figure)]
        if OURS in record["limited"].get(target.figure, {}):
            verdict += "*"
        rows.append((target.figure, wanted, ours, verdict))
    return rows


def claim(record: dict) -> str:
    at, sizes = record["machine"], record["sizes"]
    minutes = record.get("total_seconds", 0) / 60
    return (
        f"Commit {at['commit']}; Linux {at['kernel']}, {at['cpu']}, {at['cores']} cores, one for the server and one for the load "
        f"generator. {sizes['connections']:,} connections. Median (least..most) of {sizes['rounds']} rounds, {minutes:.0f} "
        "minutes in all; each round begins with another peer."
    )


def notes(record: dict) -> list[str]:
    care = []
    for row, by_peer in record["notes"].items():
        same: dict[str, list[str]] = {}
        for peer, said in by_peer.items():
            same.setdefault("; ".join(said), []).append(peer)
        care += [f"{row}, {', '.join(peers)}: {said}" for said, peers in same.items()]
    return care


# --- Markdown. ---


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    line = lambda cells: "| " + " | ".join(cells) + " |"  # noqa: E731
    return [line(head), "|---" * len(head) + "|", *map(line, rows)]


def markdown(record: dict) -> str:
    names = list(record["peers"])
    rows = []
    for figure, by_peer in record["figures"].items():
        limited = record["limited"].get(figure, {})
        cells = [spread(by_peer[name]) + "*" * (name in limited) if name in by_peer else "" for name in names]
        rows.append([figure, *cells, ratio(to_best(figure, by_peer)), ratio(to_bare(by_peer))])
    lines = [
        f"# Side by side, {record['machine']['date']}",
        "",
        claim(record),
        "",
        *table(["", *names, "throng to the best", "throng to the bare loop"], rows),
        "",
        "`*`: in a round at least the load generator, or somebody else's work, was the limit.",
        "",
        "Targets:",
        "",
        *table(["", "target", "throng", ""], [list(row) for row in targets(record)]),
        "",
        "Peers:",
        "",
        *(f"- {name}: {about}" for name, about in record["peers"].items()),
        *(f"- SKIPPED: {name}: {why}" for name, why in record["skipped"].items()),
        "",
        "To be read with it:",
        "",
        *(f"- {note}" for note in [*ALWAYS, *ELSEWHERE]),
        *(f"- {note}" for note in notes(record)),
    ]
    return "\n".join(lines)


def readme_table(record: dict, name: str) -> str:
    rows = []
    for figure, shown in SHORT.items():
        by_peer = record["figures"].get(figure, {})
        other = best(figure, by_peer)
        if OURS not in by_peer or not other:
            continue
        cells = [show(median(by_peer[OURS])), f"{show(other[1])} ({other[0]})", ratio(to_best(figure, by_peer))]
        limited = record["limited"].get(figure, {})
        cells[0] += "*" * (OURS in limited)
        cells[1] += "*" * (other[0] in limited)
        rows.append([shown.format_map(record["sizes"]), *cells, ratio(to_bare(by_peer))])
    at = record["machine"]
    others = ", ".join(name for name in record["peers"] if name not in (OURS, FLOOR))
    about = (
        f"Side by side with {others}, on {at['date']}, in turns on that machine, one core for the server: throng, the best of the "
        f"others in each row, and ratios. All figures, spreads and targets: [record](benches/record/{name}.md), by "
        "[`benches/peers`](benches/peers)."
    )
    lines = [
        *textwrap.wrap(about, 120, break_on_hyphens=False),
        "",
        *table(["", "throng", "best other", "ratio", "to the bare loop"], rows),
        "",
        "`*`: in a round at least the load generator, or somebody else's work, was the limit.",
    ]
    return "\n".join(lines)


# --- HTML: one page that needs nothing else. ---


def page(record: dict) -> str:
    text = html.escape
    cards = "".join(card(figure, by_peer, record["limited"].get(figure, {})) for figure, by_peer in record["figures"].items())
    mark = lambda verdict: "good" if verdict.startswith("met") else "bad" if verdict.startswith("missed") else ""  # noqa: E731
    rows = "".join(
        f"<tr><th>{text(figure)}</th><td>{text(wanted)}</td><td>{text(ours)}</td><td class='{mark(verdict)}'>{verdict}</td></tr>"
        for figure, wanted, ours, verdict in targets(record)
    )
    about = [f"{name}: {said}" for name, said in record["peers"].items()]
    about += [f"SKIPPED: {name}: {why}" for name, why in record["skipped"].items()]
    listed = lambda items: "<ul>" + "".join(f"<li>{text(item.replace('`', ''))}</li>" for item in items) + "</ul>"  # noqa: E731
    title = f"Side by side, {record['machine']['date']}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}"
        f"</title><style>{STYLE}</style><h1>{title}</h1><p>{text(claim(record))}</p>"
        "<p>The best is on top. The line across the bars is the bare loop. *: in a round at least the load generator, or "
        f"somebody else's work, was the limit.</p><div class=cards>{cards}</div><h2>Targets</h2><table>{rows}</table>"
        f"<h2>Peers</h2>{listed(about)}<h2>To be read with it</h2>{listed([*ALWAYS, *ELSEWHERE, *notes(record)])}</html>\n"
    )


def card(figure: str, by_peer: dict[str, list[float]], limited: dict[str, int]) -> str:
    """A figure's bars."""
    middles = {name: median(values) for name, values in by_peer.items()}
    positive = [value for value in middles.values() if value > 0]
    if not positive:
        return ""
    log = max(positive) / min(positive) > LOG_SPAN
    low, high = math.floor(math.log10(min(positive)) - 0.3), math.log10(max(positive))

    def width(value: float) -> float:
        share = (math.log10(value) - low) / (high - low) if log and value > 0 else 0 if log else value / max(positive)
        return round(100 * max(share, 0.002), 1)

    more = more_is_better(figure)
    floor = f"<i class=floor style='left:{width(middles[FLOOR])}%'></i>" if middles.get(FLOOR, 0) > 0 else ""
    rows = ""
    for name in sorted(middles, key=middles.__getitem__, reverse=more):
        kind = {OURS: "ours", FLOOR: "bare"}.get(name, "")
        said = html.escape(f"{name}: {spread(by_peer[name])}")
        rows += (
            f"<div class='row {kind}' title='{said}'><span>{html.escape(name)}</span><div><b style='width:{width(middles[name])}%'>"
            f"</b>{floor}</div><em>{show(middles[name])}{'*' * (name in limited)}</em></div>"
        )
    ratios = [f"throng to the best: {ratio(to_best(figure, by_peer))}"] if to_best(figure, by_peer) is not None else []
    ratios += [f"to the bare loop: {ratio(to_bare(by_peer))}"] if to_bare(by_peer) is not None else []
    said = "; ".join([f"{'more' if more else 'less'} is better", *["log scale"] * log, *ratios])
    return f"<section><h3>{html.escape(figure)}</h3><p>{said}</p>{rows}</section>"


STYLE = """
:root { color-scheme: light dark; --paper: #f9f9f7; --card: #fcfcfb; --ink: #0b0b0b; --ink-2: #52514e; --edge: #e1e0d9;
  --ours: #2a78d6; --other: #a9a79f; --bare: #d9d7cf; --line: #0b0b0b; --good: #006300; --bad: #a32222; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d0d0d; --card: #1a1a19; --ink: #fff; --ink-2: #c3c2b7;
  --edge: #2c2c2a; --ours: #3987e5; --other: #6b6a64; --bare: #43423e; --line: #fff; --good: #4fd04f; --bad: #f08a8a; } }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1120px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 28px 0 8px; } h3 { font-size: 15px; margin: 0; }
p, li { color: var(--ink-2); } section p { margin: 0 0 8px; font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 16px 18px; }
.row { display: grid; grid-template-columns: 128px 1fr 84px; gap: 8px; align-items: center; font-size: 13px; }
.row div { position: relative; height: 14px; } .row b { display: block; height: 100%; background: var(--other); border-radius: 2px; }
.row em { font-style: normal; text-align: right; font-variant-numeric: tabular-nums; color: var(--ink-2); }
.ours { font-weight: 650; } .ours b { background: var(--ours); } .ours em { color: var(--ink); }
.bare { color: var(--ink-2); } .bare b { background: var(--bare); }
.floor { position: absolute; top: -3px; bottom: -3px; width: 0; border-left: 1px dashed var(--line); opacity: .5; }
table { border-collapse: collapse; } td, th { text-align: left; font-weight: 400; padding: 4px 20px 4px 0; border-top: 1px solid var(--edge); }
.good { color: var(--good); } .bad { color: var(--bad); }
"""


# --- Files. ---


def newest() -> pathlib.Path | None:
    return max(ROOT.glob("benches/record/*-peers.json"), default=None)


def made(path: pathlib.Path) -> dict[pathlib.Path, str]:
    """Files, and what they are to hold. README.md has the newest record's table."""
    record = json.loads(path.read_text())
    files = {path.with_suffix(".md"): markdown(record) + "\n", path.with_suffix(".html"): page(record)}
    if (latest := newest()) and path.resolve() == latest.resolve():
        begin, end = map(re.escape, MARKERS)
        text = README.read_text()
        between = "\n".join([MARKERS[0], readme_table(record, path.stem), MARKERS[1]])
        changed, count = re.subn(f"{begin}.*?{end}", lambda _: between, text, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"README.md must have {' and '.join(MARKERS)} once")
        files[README] = changed
    return files


def write(path: pathlib.Path) -> None:
    for file, text in made(path).items():
        file.write_text(text)


def check(path: pathlib.Path) -> None:
    stale = [file.name for file, text in made(path).items() if not file.exists() or file.read_text() != text]
    if stale:
        sys.exit(f"{', '.join(stale)}: not what {path.name} gives; `benches/peers/run --render {path.relative_to(ROOT)}` makes it")
