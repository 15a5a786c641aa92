"""The page's colours and its style sheet. Plots refer to colours as ``var(--…)``, so that one plot serves light and
dark.

Contrasts are at least 4.5 for text and 3 for lines (WCAG 2.2, 1.4.3 and 1.4.11); a test computes them from this table.
Wherever a colour has a meaning, a word, a number, a marker or a line style repeats it.
"""

from __future__ import annotations

SERIES = 4  # colours of lines; markers tell more than four apart
HEAT = 5  # steps of the heat map, from the slowest

# Name: light, dark.
COLOURS = {
    "page": ("#ffffff", "#0f1419"),
    "panel": ("#f4f6f9", "#182029"),
    "text": ("#1b222b", "#e6ebf1"),
    "soft": ("#525e6d", "#a3b0be"),
    "rule": ("#d3dae2", "#313c48"),
    "grid": ("#e2e7ed", "#27313b"),
    "edge": ("#c3ccd6", "#3d4955"),
    "link": ("#0a58a8", "#7cbcff"),
    "good": ("#146c37", "#6fd391"),
    "bad": ("#a8300c", "#ff9e75"),
    "warn": ("#7d5200", "#f0bd5c"),
    "line-0": ("#0b62b8", "#6cb4ff"),
    "line-1": ("#b34a0a", "#f5a25d"),
    "line-2": ("#17783c", "#6ccf8d"),
    "line-3": ("#7d3fa8", "#cb9ff5"),
    "ceiling": ("#525e6d", "#a3b0be"),
    "heat-0": ("#8f2f08", "#ffb184"),
    "heat-1": ("#d9692c", "#d9793f"),
    "heat-2": ("#f2b07c", "#8a4a22"),
    "heat-3": ("#f6dcc3", "#573722"),
    "heat-4": ("#e4edf7", "#1d3247"),
    "on-heat-0": ("#ffffff", "#1b0d04"),
    "on-heat-1": ("#1b0d04", "#140a03"),
    "on-heat-2": ("#1b222b", "#ffffff"),
    "on-heat-3": ("#1b222b", "#f4f6f9"),
    "on-heat-4": ("#1b222b", "#e6ebf1"),
}


def css() -> str:
    """Return the whole style sheet."""
    light = "".join(f"--{name}:{both[0]};" for name, both in COLOURS.items())
    dark = "".join(f"--{name}:{both[1]};" for name, both in COLOURS.items())
    # On paper it is light whatever the screen is.
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{dark}}}}}\n{_RULES}"
    )


_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);
 font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",sans-serif}
header,main,footer{max-width:60rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}
footer{padding-top:1.5rem;padding-bottom:3rem;color:var(--soft);font-size:.875rem}
h1{font-size:1.625rem;line-height:1.25;margin:0 0 .25rem;letter-spacing:-.01em}
h2{font-size:1.25rem;line-height:1.3;margin:2.75rem 0 .75rem;padding-top:1.25rem;border-top:1px solid var(--rule)}
h3{font-size:1.0625rem;line-height:1.35;margin:1.75rem 0 .5rem}
p{margin:.5rem 0;max-width:44rem}
h1,h2,h3,p,li,dd,dt,summary,code{overflow-wrap:anywhere}
a{color:var(--link);text-underline-offset:.15em}
p .word{white-space:nowrap}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.875em}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:2px}
.skip{position:absolute;left:-100vw;top:0;background:var(--page);padding:.5rem 1rem;z-index:1}
.skip:focus{left:0}
.soft{color:var(--soft)}
nav ul{list-style:none;margin:1rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.125rem 1.25rem;font-size:.9375rem}
nav a{display:inline-block;padding:.25rem 0}
.verdict{margin:1.5rem 0 0;padding:1rem 1.25rem;background:var(--panel);border-left:.375rem solid var(--tone);
 border-radius:.25rem}
.verdict h2{margin:0;padding:0;border:0;color:var(--tone)}
.verdict p{margin:.25rem 0 0}
.good{--tone:var(--good)}.bad{--tone:var(--bad)}.warn{--tone:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:.75rem;margin:1rem 0 0}
.tiles div{background:var(--panel);border-radius:.375rem;padding:.75rem 1rem}
.tiles dt{font-size:.8125rem;color:var(--soft)}
.tiles dd{margin:0;font-size:.875rem}
.tiles .value{font-size:1.5rem;line-height:1.3;font-weight:600;font-variant-numeric:tabular-nums}
.findings{margin:1rem 0 0;padding:0;list-style:none;display:grid;gap:.75rem}
.findings li{border:1px solid var(--rule);border-left:.375rem solid var(--bad);border-radius:.25rem;padding:.75rem 1rem}
.findings p{margin:.25rem 0 0}
.kind{font-weight:600;color:var(--bad)}
figure{margin:0}
figcaption{color:var(--soft);font-size:.9375rem;max-width:44rem;margin:0 0 .5rem}
svg{display:block;max-width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt}
.wide svg{width:100%}
.narrow{display:none}
.scroll svg{max-width:none}
@media screen and (max-width:40rem){.wide{display:none}.narrow{display:block}.narrow svg{width:100%;max-width:28rem}
 header,main,footer{padding-left:1rem;padding-right:1rem}h1{font-size:1.375rem}
 .tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:.5rem}.tiles div{padding:.625rem .75rem}
 .tiles .value{font-size:1.25rem}.tiles dd{font-size:.8125rem}}
.key{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:.5rem 0;padding:0;list-style:none;font-size:.875rem}
.key span{display:inline-block;width:1rem;height:1rem;margin-right:.375rem;vertical-align:-.15rem;
 border:1px solid var(--soft);border-radius:.125rem;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.scroll{overflow-x:auto;margin:.75rem 0;position:relative;background:
 linear-gradient(90deg,var(--page) 1.5rem,transparent 3rem) local,
 linear-gradient(270deg,var(--page) 1.5rem,transparent 3rem) 100% 0 local,
 linear-gradient(90deg,var(--edge),transparent) 0 0/.625rem 100% no-repeat scroll,
 linear-gradient(270deg,var(--edge),transparent) 100% 0/.625rem 100% no-repeat scroll}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;min-width:100%}
caption{text-align:left;color:var(--soft);padding:0 0 .375rem}
caption span{display:inline-block;position:sticky;left:0;max-width:min(44rem,100vw - 2rem)}
th,td{padding:.375rem .75rem;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top;white-space:nowrap}
thead th{color:var(--soft);font-weight:600;border-bottom-width:2px}
tbody th{font-weight:600}
.number{text-align:right}
tbody th{position:sticky;left:0;background:var(--page);max-width:12rem;overflow-wrap:break-word}
tbody th:not(.number){white-space:normal;min-width:8.5rem}
.words th,.words td,.words tbody th{white-space:normal;overflow-wrap:anywhere;min-width:6rem;position:static}
details{margin:.75rem 0}
summary{cursor:pointer;color:var(--link);padding:.25rem 0}
pre{margin:.5rem 0;padding:.75rem 1rem;background:var(--panel);border-radius:.25rem;
 white-space:pre-wrap;overflow-wrap:anywhere}
pre.all code{user-select:all;-webkit-user-select:all}
@media print{body{font-size:10pt}header,main,footer{max-width:none;padding:0}nav,.skip{display:none}
 details::details-content{content-visibility:visible;block-size:auto}
 figure,tr,.tiles div,.findings li{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}
 table{font-size:7pt}th,td{padding:.125rem .25rem;white-space:normal}}
"""
