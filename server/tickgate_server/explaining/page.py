"""An explanation as one HTML page that needs nothing else: no script, no file beside it, no network."""

from collections.abc import Iterable
from html import escape

from tickgate_server.explaining import facts
from tickgate_server.explaining.explanation import Explanation

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--dim:#667085;--line:#e3e7ee;--up:#157f4f;--down:#b42318;--warn:#93610a;
--paper:#fff;--tint:#f6f8fb}
@media(prefers-color-scheme:dark){:root{--ink:#e7ebf2;--dim:#9aa4b5;--line:#2c3442;--up:#4cc38a;--down:#ff7b72;
--warn:#e2b34a;--paper:#12161d;--tint:#1a2029}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;padding:28px 24px 60px;
max-width:1060px}
h1{font-size:22px;margin:0 0 2px}h2{font-size:16px;margin:30px 0 8px}
p{margin:6px 0;color:var(--dim)}
.answer{display:inline-block;padding:2px 10px;border-radius:4px;font-weight:600;color:#fff;background:var(--dim)}
.BUY{background:#157f4f}.SELL{background:#b42318}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(400px,1fr));gap:0 36px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 8px;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim)}td.n,th.n{text-align:right;white-space:nowrap}
.pairs th{width:34%;font-weight:400}.pairs td{overflow-wrap:anywhere}
.fails{color:var(--down);font-weight:600}.passes{color:var(--up)}.waived,.unknown{color:var(--warn)}.off{color:var(--dim)}
tr.reason td{background:var(--tint);font-weight:600}
.bar{position:relative;height:14px;min-width:190px;background:linear-gradient(var(--line),var(--line)) center/1px 100%
no-repeat}
.bar i{position:absolute;top:1px;bottom:1px;border-radius:2px}
.up{background:var(--up);left:50%}.down{background:var(--down);right:50%}
.share{position:relative;height:6px;width:110px;background:var(--line);border-radius:3px;margin-top:7px}
.share i{position:absolute;width:4px;height:12px;top:-3px;border-radius:2px;background:var(--ink)}
.times{display:flex;height:22px;border-radius:4px;overflow:hidden;margin:6px 0}
.times span{display:block}
.note{border-left:3px solid var(--warn);padding:2px 10px;color:var(--ink)}
"""
_STAGE_COLOURS = ("#7b8794", "#2563a8", "#157f4f", "#93610a", "#a5adba")


def page(found: Explanation) -> str:
    """The page's text."""
    row = found.decision
    title = f"Decision {row['request_id']}"
    action = row["action"] or row["status"]
    said = f"{row['reason'] or row['status']} · {row['symbol'] or '-'}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p><span class="answer {escape(action)}">{escape(action)}</span> {escape(said)}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in found.notes),
        '<div class="columns">',
        _pairs("Decision", facts.outcome(found)),
        _pairs("Input", facts.given(found)),
        _pairs("Prediction", facts.prediction(found)),
        _timings(found),
        "</div>",
        _features(found),
        _checks(found),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _pairs(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f'<section><h2>{title}</h2><table class="pairs">{rows}</table></section>'


def _timings(found: Explanation) -> str:
    timings = facts.timings(found)
    total = sum(us for _, us in timings)
    if not total:
        return ""
    coloured = list(zip(timings, _STAGE_COLOURS, strict=False))
    bar = "".join(
        f'<span style="width:{100 * us / total:.2f}%;background:{colour}"></span>' for (_, us), colour in coloured
    )
    rows = "".join(
        f'<tr><th><span style="color:{colour}">■</span> {escape(name)}</th><td class="n">{us:.1f} µs</td></tr>'
        for (name, us), colour in coloured
    )
    whole = f'<tr><th>in all</th><td class="n"><b>{total:.1f} µs</b></td></tr>'
    return f'<section><h2>Time</h2><div class="times">{bar}</div><table class="pairs">{rows}{whole}</table></section>'


def _features(found: Explanation) -> str:
    if not found.features:
        return ""
    shown = sorted(found.features, key=lambda one: -abs(one.contribution or 0.0))
    largest = max(abs(one.contribution or 0.0) for one in shown)
    with_contributions = found.contributions is not None
    rows: list[str] = []
    for one in shown:
        mark = ""
        if one.percentile is not None and one.percentile == one.percentile:
            mark = f'<div class="share"><i style="left:{100 * one.percentile:.1f}%"></i></div>'
        cells = [
            f"<td>{escape(one.name)}</td>",
            f'<td class="n">{facts.number(one.value)}</td>',
            f'<td class="n">{facts.percent(one.percentile, outside=one.outside)}</td>',
            f"<td>{mark}</td>",
        ]
        if one.contribution is not None:
            width = 50.0 * abs(one.contribution) / largest if largest else 0.0
            side = "up" if one.contribution > 0.0 else "down"
            bar = f'<div class="bar"><i class="{side}" style="width:{width:.1f}%"></i></div>'
            cells.append(f'<td class="n">{one.contribution:+.4f}</td><td>{bar}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = '<th>feature</th><th class="n">value</th><th class="n">percentile</th><th>in training</th>'
    if with_contributions:
        heads += '<th class="n">contribution</th><th>down / up</th>'
    said = f"<p>{escape(facts.method(found))}</p>" if with_contributions else ""
    return f"<h2>Features</h2>{said}<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _checks(found: Explanation) -> str:
    if not found.checks:
        return ""
    rows: list[str] = []
    for one in found.checks:
        limit = "none" if one.outcome == "off" else facts.number(one.limit)
        outcome = "unknown" if one.outcome == "?" else one.outcome
        mark = " ← the reason" if one.decisive else ""
        rows.append(
            f"<tr{' class=reason' if one.decisive else ''}><td>{escape(one.name)}</td>"
            f'<td class="n">{facts.number(one.value)}</td><td>{"at least" if one.at_least else "at most"}</td>'
            f'<td class="n">{limit}</td><td class="{outcome}">{outcome}{mark}</td></tr>'
        )
    heads = '<th>check</th><th class="n">measured</th><th></th><th class="n">limit</th><th>outcome</th>'
    return f"<h2>Risk checks</h2><table><tr>{heads}</tr>{''.join(rows)}</table>"
