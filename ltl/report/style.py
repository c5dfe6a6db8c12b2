"""The page's style sheet: legible at desktop and phone widths and in print, nothing loaded from elsewhere."""

STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --soft: #595959; --line: #dcdcdc; --tint: #f5f6f8; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 76rem; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p, ul { margin: .5rem 0; max-width: 48rem; }
li { margin: .3rem 0; }
a { color: var(--blue); }
.soft { color: var(--soft); }
.verdict { border-left: .3rem solid var(--blue); background: var(--tint); padding: .75rem 1.1rem; margin: 1rem 0; }
.verdict p:first-child { font-size: 1.1rem; margin-top: 0; }
.caution { border-left: .3rem solid #d55e00; background: #fdf3ec; padding: .5rem 1.1rem; margin: 1rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; background: #fff; }
figure svg { display: block; width: 100%; height: auto; max-width: 42rem; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .875rem; margin-top: .5rem; }
.verdict p { max-width: 60rem; }
.scroll { overflow-x: auto; margin: .75rem 0 1.25rem; border: 1px solid var(--line); border-radius: .4rem; }
.scroll:focus { outline: 2px solid var(--blue); }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .35rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
td.text, th.text { text-align: left; white-space: normal; min-width: 9rem; }
thead th { background: var(--tint); vertical-align: bottom; line-height: 1.25; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 600; position: sticky; left: 0; background: #fff; border-right: 1px solid var(--line); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--tint); padding: 1rem; overflow-x: auto; font-size: .8rem; line-height: 1.4; }
summary { cursor: pointer; color: var(--blue); padding: .3rem 0; }
@media (max-width: 40rem) {
  body { padding: 1rem .75rem 3rem; }
  h1 { font-size: 1.4rem; }
  figure { margin: 0 -.75rem; padding: .5rem 0; border-width: 1px 0; border-radius: 0; }
  figcaption { padding: 0 .75rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print { figure, tr { break-inside: avoid; } details { display: none; } }
"""
