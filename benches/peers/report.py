"""What is made of a record of benches/peers/run: a table, a page with charts, README's lines. Nothing here measures."""

import html
from math import log10
from statistics import median

OURS, FLOOR = "throng", "bare loop"
MORE_IS_BETTER = "/s"

# Figure, the ratio to the best of the others that it shall not be above (with more being better: not below), and the one to
# the bare loop: where that allows more, it counts, or where both must hold, both do.
TARGETS: list[tuple[str, float, float | None, str]] = [
    ("idle, bytes a connection", 0.25, None, ""),
    ("handshake, us of CPU", 0.75, None, ""),
    ("echo 64 B, us of CPU", 1.0, 1.05, "or"),
    ("echo 1 KB, us of CPU", 1.0, 1.05, "or"),
    ("echo 64 KB, us of CPU", 1.0, 1.05, "or"),
    ("broadcast 1/s, us of CPU a delivery", 0.95, 1.1, "and"),
    ("broadcast 300/s, deliveries/s", 3.0, None, ""),
    ("echo beside broadcasts, p99 us", 0.05, None, ""),
    ("storm, s to the last", 0.9, None, ""),
    ("heartbeat, us of CPU", 0.9, None, ""),
]
ELSEWHERE = (
    "Measured on another day and not in this run, since they are not to be had as packages here: user-space bytes of an idle "
    "connection, Centrifugo's engine 31 K, nbio 1.5 K."
)

Values = dict[str, list[float]]


def more_is_better(figure: str) -> bool:
    return figure.endswith(MORE_IS_BETTER)


def best_other(figure: str, by_peer: Values) -> tuple[str, float] | None:
    """Whose figure is the best but for ours and the bare loop's."""
    others = {name: median(values) for name, values in by_peer.items() if name not in (OURS, FLOOR)}
    if not others:
        return None
    name = (max if more_is_better(figure) else min)(others, key=lambda peer: others[peer])
    return name, others[name]


def ratios(figure: str, by_peer: Values) -> tuple[float | None, float | None]:
    """Ours to the best other's, and to the bare loop's."""
    if OURS not in by_peer:
        return None, None
    ours, best = median(by_peer[OURS]), best_other(figure, by_peer)
    floor = median(by_peer[FLOOR]) if FLOOR in by_peer else 0
    return (ours / best[1] if best and best[1] else None), (ours / floor if floor else None)


def number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(values: list[float]) -> str:
    shown = number(median(values))
    return shown if len(values) == 1 else f"{shown} ({number(min(values))}..{number(max(values))})"


def ratio_text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def about(record: dict) -> str:
    at, sizes = record["machine"], record["sizes"]
    took = f" It took {record['minutes']:.0f} minutes." if "minutes" in record else ""
    return (
        f"Commit {at['commit']}; Linux {at['kernel']}, {at['cpu']}, {at['cores']} cores, one for the server and one for the load "
        f"generator. {sizes['connections']:,} connections. Median (least..most) of {sizes['rounds']} rounds.{took}"
    )


def targets(record: dict) -> list[tuple[str, str, str, str]]:
    """Figure, what it shall be, what it is, and whether that is enough."""
    rows = []
    for figure, most, floor_most, how in TARGETS:
        to_best, to_floor = ratios(figure, record["figures"].get(figure, {}))
        if to_best is None:
            continue
        enough = to_best >= most if more_is_better(figure) else to_best <= most
        wanted, have = f"{'at least' if more_is_better(figure) else 'at most'} {most} of the best", f"{to_best:.2f}"
        if floor_most is not None and to_floor is not None:
            by_floor = to_floor <= floor_most
            enough = enough or by_floor if how == "or" else enough and by_floor
            wanted, have = f"{wanted} {how} {floor_most} of the bare loop", f"{have}; {to_floor:.2f}"
        rows.append((figure, wanted, have, "met" if enough else "missed"))
    return rows


def markdown(record: dict) -> str:
    names = list(record["peers"])
    lines = [f"# Side by side, {record['machine']['date']}", "", about(record), ""]
    lines += [f"| | {' | '.join(names)} | throng to the best | to the bare loop |", "|---" * (len(names) + 3) + "|"]
    for figure, by_peer in record["figures"].items():
        cells = [spread(by_peer[name]) if name in by_peer else "" for name in names]
        lines.append(f"| {figure} | {' | '.join(cells)} | {' | '.join(map(ratio_text, ratios(figure, by_peer)))} |")
    lines += ["", "The best of the others, without the bare loop: what a figure shall be, and is.", ""]
    lines += ["| | target | ratio | |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in targets(record))]
    lines += ["", "Peers:", "", *(f"- {name}: {what}" for name, what in record["peers"].items())]
    lines += [f"- SKIPPED: {name}: {why}" for name, why in record["skipped"].items()]
    lines += ["", ELSEWHERE]
    if record["notes"]:
        lines += ["", "To be read with care:", ""]
        lines += [f"- {where}: {'; '.join(notes)}" for where, notes in record["notes"].items()]
    return "\n".join(lines)


STYLE = """
:root { color-scheme: light dark; --bar: #9aa7b4; --ours: #d9480f; --floor: #5c7c5c; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
h2 small { font-weight: normal; opacity: .7; }
.row { display: grid; grid-template-columns: 10rem 1fr 12rem; gap: .6rem; align-items: center; font-variant-numeric: tabular-nums; }
.bar { height: .8rem; background: var(--bar); border-radius: 2px; min-width: 2px; }
.ours { background: var(--ours); } .floor { background: var(--floor); }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
"""
LOG_FROM = 30.0


def page(record: dict) -> str:
    """A page that needs nothing else: a chart for each figure."""
    parts = [f"<!doctype html><meta charset=utf-8><title>throng side by side</title><style>{STYLE}</style>"]
    parts += [f"<h1>Side by side, {record['machine']['date']}</h1><p>{html.escape(about(record))}</p>"]
    parts += ["<table><tr><th>figure<th>target<th>ratio<th>"]
    parts += ["<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in targets(record)]
    parts += ["</table>", *(chart(figure, by_peer) for figure, by_peer in record["figures"].items())]
    parts += [f"<p>{html.escape(ELSEWHERE)}</p><h2>To be read with care</h2><ul>"]
    parts += [f"<li>{html.escape(where)}: {html.escape('; '.join(notes))}" for where, notes in record["notes"].items()]
    return "\n".join(parts) + "</ul>\n"


def chart(figure: str, by_peer: Values) -> str:
    """Bars, the best first; on a logarithmic scale where they would not be seen otherwise."""
    middles = {name: median(values) for name, values in by_peer.items()}
    most = max(middles.values())
    least = min((value for value in middles.values() if value > 0), default=0.0)
    is_log = least > 0 and most / least > LOG_FROM
    rows = []
    for name, value in sorted(middles.items(), key=lambda item: item[1], reverse=more_is_better(figure)):
        share = 0.0 if most <= 0 or value <= 0 else (1 + log10(value / least)) / (1 + log10(most / least)) if is_log else value / most
        kind = " ours" if name == OURS else " floor" if name == FLOOR else ""
        bar = f'<div><div class="bar{kind}" style="width:{share * 100:.1f}%"></div></div>'
        rows.append(f'<div class="row"><span>{html.escape(name)}</span>{bar}<span>{spread(by_peer[name])}</span></div>')
    better = "more is better" if more_is_better(figure) else "less is better"
    return f"<h2>{html.escape(figure)} <small>{better}{', logarithmic' if is_log else ''}</small></h2>" + "".join(rows)


BEGIN, END = "<!-- peers: made by benches/peers/run -->", "<!-- /peers -->"
README_ROWS = [
    *(figure for figure, *_ in TARGETS),
    "broadcast 300/s, us of CPU a delivery",
    "broadcast 300/s, ms to the last",
]


def readme_table(record: dict, name: str) -> str:
    at = record["machine"]
    lines = [
        f"In turns with others under one load generator, one core for each side, {at['date']}"
        f" ([all figures, their spreads, and what to be careful with](benches/record/{name})):",
        "",
        "| | throng | best of the others | ratio | bare loop |",
        "|---|---|---|---|---|",
    ]
    for figure in README_ROWS:
        by_peer = record["figures"].get(figure, {})
        best = best_other(figure, by_peer)
        if OURS not in by_peer or best is None:
            continue
        floor = number(median(by_peer[FLOOR])) if FLOOR in by_peer else ""
        ours, ratio = number(median(by_peer[OURS])), ratio_text(ratios(figure, by_peer)[0])
        lines.append(f"| {figure} | {ours} | {number(best[1])}, {best[0]} | {ratio} | {floor} |")
    return "\n".join(lines)


def into_readme(text: str, record: dict, name: str) -> str:
    """The text with the table of that record between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"README.md has no lines `{BEGIN}` and `{END}` for the table to stand between")
    return f"{before}{BEGIN}\n{readme_table(record, name)}\n{END}{after}"
