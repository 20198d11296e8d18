"""The style sheet of the page.

One column for text and tables alike; tables that scroll by themselves, light or dark as the
reader's system is, ink on white in print. Figures take their colours from here.
"""

CSS = """
:root {
  --paper: #ffffff; --ink: #1b1b1b; --soft: #55585c; --line: #d4d7da; --pale: #f4f6f8;
  --accent: #1f4e79; --fill: #d9e2ec; --grid: #c9c9c9; color-scheme: light dark; }
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --ink: #e9e9e6; --soft: #a8adb3; --line: #3a4047; --pale: #20252b;
    --accent: #8fbbe8; --fill: #47525f; --grid: #3f464e; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 54rem; background: var(--paper);
  color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans",
  sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 {
  font-size: 1.3rem; line-height: 1.3; margin: 3.2rem 0 .6rem; padding-top: .9rem;
  border-top: 2px solid var(--ink); }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
h4 { font-size: .95rem; margin: 0 0 .4rem; }
p, ul, dl { margin: .6rem 0; }
ul { padding-left: 1.2rem; }
a { color: var(--accent); text-underline-offset: .15em; }
.lead { font-size: 1.1rem; line-height: 1.5; }
.soft, figcaption, caption, dt { color: var(--soft); }
nav { margin: 1.6rem 0 0; font-size: .92rem; }
nav a { margin-right: 1.1rem; white-space: nowrap; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .7rem 1.6rem;
  margin: 1.4rem 0;
  padding: 1rem 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.facts dt { font-size: .82rem; }
.facts dd { margin: 0; }
.words, .words .facts { border: 0; padding: 0; }
.notes {
  margin: 1.4rem 0; padding: .7rem 1.1rem; border: 1px solid var(--ink); border-left-width: 6px; }
.notes h3 { margin: 0 0 .2rem; }
figure { margin: 1.4rem 0; }
figure svg { display: block; width: 100%; }
figure svg:not(.bars) { height: auto; }
.bars { overflow: visible; }
.bars text {
  fill: var(--ink); font-size: 14px; font-variant-numeric: tabular-nums;
  paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
.bars .name, .bars .number { font-weight: 600; }
.bars .title { fill: var(--soft); font-weight: 600; letter-spacing: .02em; }
.bars .tick, .bars .span { fill: var(--soft); font-size: 13px; }
.bars .grid { stroke: var(--grid); }
.bars .bar { stroke: var(--ink); }
.bars .empty { fill: var(--paper); }
.bars .pale { fill: var(--fill); }
.bars .full { fill: var(--accent); }
.bars .dot { fill: var(--accent); }
.bars .stripe { stroke: var(--ink); stroke-width: 2; }
.bars .interval { stroke: var(--ink); stroke-width: 1.6; }
.bars .reference { stroke: var(--ink); stroke-width: 1.6; stroke-dasharray: 4 3; }
.bars .halo { stroke: var(--paper); stroke-width: 4.6; stroke-dasharray: none; }
.headline { font-size: 1.25rem; line-height: 1.4; font-weight: 600; }
figcaption { font-size: .9rem; margin-top: .4rem; }
.scroll { overflow-x: auto; margin: 1.1rem 0; }
table {
  border-collapse: collapse; font-size: .9rem; line-height: 1.4; min-width: 100%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td {
  padding: .38rem 1rem .38rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 400; }
.n { text-align: right; white-space: nowrap; }
thead .n { white-space: normal; }
.w { min-width: 15rem; }
.range { color: var(--soft); white-space: nowrap; }
.stacked .range { display: block; }
tbody th, .short { white-space: nowrap; }
.stacked td.n { white-space: normal; }
.answers tbody th, .settings tbody th, .stacked tbody th, .stacked .short { white-space: normal; }
details { border-top: 1px solid var(--line); padding: .55rem 0; }
details details { border: 0; padding: .2rem 0; }
summary { cursor: pointer; }
details > summary > b { font-weight: 600; }
details[open] > summary { margin-bottom: .5rem; }
.sides {
  display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.4rem; margin: 1rem 0; }
.kept { position: sticky; top: 1rem; align-self: start; }
.card { border: 1px solid var(--line); padding: .6rem .8rem; margin: 0 0 .8rem; }
.kept .card { border: 2px solid var(--ink); }
.card p { margin: 0 0 .4rem; }
.tagged {
  font-size: .82rem; border: 1px solid var(--ink); padding: .05rem .4rem; white-space: nowrap; }
.kept .tagged { background: var(--ink); color: var(--paper); }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .82rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  background: var(--pale); padding: .5rem .6rem; }
ol.examples { margin: .4rem 0; padding-left: 1.5rem; font-size: .85rem; }
ol.examples li { margin: .15rem 0; }
.asked { color: var(--soft); }
blockquote {
  margin: .6rem 0; padding: 0 0 0 .9rem; border-left: 3px solid var(--line); color: var(--soft);
  font-size: .93rem; }
.answers td { max-width: 16rem; min-width: 7rem; }
.mark { font-weight: 700; }
@media (max-width: 40rem) {
  .bars .span, .bars .middle { display: none; }
  body { padding-top: 1.5rem; }
  h1 { font-size: 1.5rem; }
  .sides { grid-template-columns: 1fr; }
  .kept { position: static; }
}
@media print {
  @page { margin: 16mm 14mm; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  nav { display: none; }
  h2 { break-after: avoid; margin-top: 1.6rem; }
  h3, h4, summary, caption { break-after: avoid; }
  figure, .card, tr, .notes, .facts { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8.5pt; }
  thead { display: table-header-group; }
  details::details-content { content-visibility: visible; block-size: auto; display: block; }
  summary { list-style: none; }
  .kept { position: static; }
  pre { border: 1px solid var(--line); background: none; }
  .kept .tagged { background: none; color: var(--ink); font-weight: 700; }
  a { color: inherit; text-decoration: none; }
}
"""
