"""An attribution as HTML with CSS alone, since a notebook may run no scripts: bars over tokens, details of the one pointed at or focused."""

from __future__ import annotations

import html
import math
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epo_client.attribution import Attribution, Substitute, TokenAttribution

_BEST = 3
# From nothing at stake to the most: as far from white as from black, and apart for those who do not see red from green.
_CALM, _STAKE = (0x7F, 0x8F, 0xA6), (0xD1, 0x49, 0x5B)
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}

# Outputs scroll rather than overflow in some notebooks, so details have a place of their own below the bars. What is pointed at covers
# what is focused. Text takes the page's colour; where it covers something, paper and ink go together.
_STYLE = """
.epo-attribution{position:relative;max-width:60em;font-size:13px;line-height:1.4;text-align:left}
.epo-attribution p{margin:0 0 .4em;line-height:1.4}
.epo-strip{display:flex;flex-wrap:wrap;row-gap:.6em}
.epo-token{display:flex;flex-direction:column;align-items:stretch;cursor:default;outline-offset:-1px}
.epo-token:hover,.epo-token:focus{background:rgba(127,127,127,.18)}
.epo-token:focus{outline:2px solid rgba(127,127,127,.9)}
.epo-chart{position:relative;height:6em}
.epo-bar{position:absolute;left:50%;width:1.2em;margin-left:-.6em;border-radius:2px}
.epo-zero{position:absolute;left:0;right:0;border-top:1px solid rgba(127,127,127,.7)}
.epo-text{display:block;box-sizing:border-box;min-width:2em;max-width:14em;margin:3px 1px 0;padding:0 .3em;border-radius:3px;
background:rgba(127,127,127,.13);font-family:monospace;text-align:center;white-space:pre;overflow:hidden;text-overflow:ellipsis}
.epo-hint{opacity:.75}
.epo-attribution .epo-legend{margin-top:.6em}
.epo-scale{display:inline-block;width:5em;height:.7em;border-radius:2px;vertical-align:baseline}
.epo-panel,.epo-tip{height:12.5em;overflow:hidden}
.epo-tip{position:absolute;left:0;right:0;bottom:0;visibility:hidden;z-index:1;
background:var(--jp-layout-color0,var(--vscode-editor-background,Canvas));color:var(--jp-content-font-color1,var(--vscode-editor-foreground,CanvasText))}
.epo-token:focus .epo-tip,.epo-token:hover .epo-tip{visibility:visible}
.epo-token:hover .epo-tip{z-index:2}
.epo-attribution .epo-tip table{border-collapse:collapse;border:none;margin:0;font-size:inherit;table-layout:auto}
.epo-attribution .epo-tip tr,.epo-attribution .epo-tip th,.epo-attribution .epo-tip td{background:none;border:none;color:inherit;
padding:0 1.2em 0 0;text-align:right;font-weight:normal;line-height:1.45;max-width:26em;white-space:pre;overflow:hidden;text-overflow:ellipsis}
.epo-attribution .epo-tip th{opacity:.75}
.epo-attribution .epo-tip .epo-word{text-align:left}
.epo-word bdi{font-family:monospace}
"""


def strip(attribution: Attribution) -> str:
    """The attribution as one element, self-contained."""
    tokens = attribution.tokens
    drops = [token.drop_to_best for token in tokens if math.isfinite(token.drop_to_best)]
    low, high = min([0.0, *drops]), max([0.0, *drops])
    most = max([0.0, *(token.drop_to_worst for token in tokens if math.isfinite(token.drop_to_worst))])
    target, xentropy = attribution.prompt.target, attribution.prompt.xentropy
    score = f"{_number(target)} at cross-entropy {_number(xentropy)}"
    title = f"{html.escape(attribution.objective.label)} {score}: what it owes to each token"
    bar = f"a bar is the drop in target to the best substitute, up to {_number(high)}"
    bar += f" (below the line, down to {_number(low)}: it does better)" if low < 0 else ""
    gradient = f"linear-gradient(to right,{_colour(0)},{_colour(1)})"
    scale = f'its colour the drop to the worst: 0 <span class="epo-scale" style="background:{gradient}"></span> {_number(most)}'
    columns = "".join(_column(attribution, token, low, high, most) for token in tokens)
    return (
        f'<div class="epo-attribution" dir="ltr"><style>{_STYLE}</style><p class="epo-title">{title}</p><div class="epo-strip">{columns}</div>'
        f'<p class="epo-legend">{bar}; {scale}</p>'
        '<div class="epo-panel"><p class="epo-hint">Point at a token, or move to it with the Tab key, to see its substitutes.</p></div></div>'
    )


def visible(text: str) -> str:
    """The text in one line, as the command line shows it: what is invisible, steers the reader's screen or turns the direction of writing is
    written as an escape. Not yet escaped for HTML."""
    shown = []
    for i, character in enumerate(text):
        category = unicodedata.category(character)
        # A mark with nothing before it would be drawn on what is.
        alone = category in ("Mn", "Me") and i == 0
        if character in _NAMED:
            shown.append(_NAMED[character])
        elif category[0] == "C" or alone or (category[0] == "Z" and character != " "):
            code = ord(character)
            shown.append(f"\\x{code:02x}" if code < 0x80 else f"\\u{{{code:x}}}")
        else:
            shown.append(character)
    return "".join(shown)


def _column(attribution: Attribution, token: TokenAttribution, low: float, high: float, most: float) -> str:
    span = high - low or 1.0
    drops = f"drop to the best substitute {_number(token.drop_to_best)}, to the worst {_number(token.drop_to_worst)}"
    label = f"{_quoted(token.text)}: {drops}"
    bar = ""
    if math.isfinite(token.drop_to_best):
        bottom, height = (min(token.drop_to_best, 0.0) - low) / span, abs(token.drop_to_best) / span
        stake = token.drop_to_worst / most if most and math.isfinite(token.drop_to_worst) else 0.0
        bar = f'<div class="epo-bar" style="bottom:{100 * bottom:.2f}%;height:{100 * height:.2f}%;background:{_colour(stake)}"></div>'
    chart = f'<div class="epo-chart">{bar}<div class="epo-zero" style="bottom:{100 * -low / span:.2f}%"></div></div>'
    head = f'<p class="epo-word"><bdi>{_quoted(token.text)}</bdi> at {token.position}, id {token.id}: {drops}</p>'
    tip = f'<div class="epo-tip">{head}{_table(attribution, token)}</div>'
    return f'<div class="epo-token" tabindex="0" role="group" aria-label="{label}">{chart}<bdi class="epo-text">{html.escape(visible(token.text))}</bdi>{tip}</div>'


def _table(attribution: Attribution, token: TokenAttribution) -> str:
    ranked = token.ranked
    rows = [_row("as it is", token.text, attribution.prompt.target, attribution.prompt.xentropy)]
    rows += [_of(f"best {i}", other) for i, other in enumerate(ranked[:_BEST], 1)]
    if len(ranked) > _BEST:
        rows.append(_of("worst", ranked[-1]))
    head = '<tr><th></th><th class="epo-word">token</th><th>target</th><th>cross-entropy</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _of(name: str, other: Substitute) -> str:
    return _row(name, other.text, other.target, other.xentropy)


def _row(name: str, text: str, target: float, xentropy: float) -> str:
    word = f'<td class="epo-word"><bdi>{_quoted(text)}</bdi></td>'
    return f'<tr><th class="epo-word">{name}</th>{word}<td>{_number(target)}</td><td>{_number(xentropy)}</td></tr>'


def _quoted(text: str) -> str:
    escaped = visible(text).replace('"', '\\"')
    return html.escape(f'"{escaped}"')


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "\N{EN DASH}"


def _colour(stake: float) -> str:
    share = min(max(stake, 0.0), 1.0)
    red, green, blue = (round(calm + share * (hot - calm)) for calm, hot in zip(_CALM, _STAKE))
    return f"#{red:02x}{green:02x}{blue:02x}"
