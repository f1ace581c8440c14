"""The style sheet of the report page: screen, dark screen and paper."""

CSS = """
:root {
  --ink: #1b1f24; --soft: #59626d; --line: #d9dee4; --paper: #ffffff;
  --card: #f6f8fa; --link: #0b5cad;
  --holds: #00664b; --holds-back: #d9f2e8;
  --fails: #a33600; --fails-back: #fde5d8;
  --undecided: #5b5200; --undecided-back: #f5efc4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --soft: #9aa5b1; --line: #363d46; --paper: #15191e;
    --card: #1d2229; --link: #7db8f0;
    --holds: #7fe0bd; --holds-back: #10382c;
    --fails: #ffb08a; --fails-back: #45200d;
    --undecided: #e6d973; --undecided-back: #383208;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica,
    Arial, sans-serif;
}
main, header { max-width: 62rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2.5rem; }
main { padding-bottom: 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 {
  font-size: 1.35rem; margin: 3rem 0 .8rem; padding-bottom: .3rem;
  border-bottom: 2px solid var(--line);
}
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1.2rem 0 .4rem; }
h1, h2, h3, h4 { overflow-wrap: anywhere; }
p { margin: .5rem 0; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
.soft, .notes, figcaption { color: var(--soft); font-size: .875rem; }
.notes { margin: .4rem 0; padding-left: 1.2rem; }
code, pre {
  font: .84em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
code { overflow-wrap: anywhere; }
pre { overflow-x: auto; margin: .6rem 0 0; }
nav {
  margin: 1.4rem 0 0; padding: .8rem 1.1rem; background: var(--card);
  border-radius: .5rem;
}
nav ol { margin: 0; padding-left: 1.3rem; }
nav ol ol { padding-left: 0; list-style: none; }
nav ol ol li { display: inline-block; margin-right: 1rem; font-size: .875rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
.scroll td:first-child { max-width: 60vw; min-width: 5rem; }
table {
  border-collapse: collapse; font-size: .875rem;
  font-variant-numeric: tabular-nums;
}
th, td {
  padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
th { font-weight: 600; vertical-align: bottom; }
thead th { border-bottom: 1.5px solid var(--soft); }
th + th, td + td { padding-left: .8rem; }
td:last-child, th:last-child { padding-right: 0; }
.num { text-align: right; }
td { white-space: nowrap; }
th { max-width: 11rem; }
.ends { color: var(--soft); font-size: .92em; }
.wrap { white-space: normal; overflow-wrap: anywhere; max-width: 32rem; }
.verdict {
  display: inline-block; padding: .05rem .55rem; border-radius: 1rem;
  font-size: .75rem; font-weight: 700; letter-spacing: .03em;
  white-space: nowrap;
}
.HOLDS { color: var(--holds); background: var(--holds-back); }
.FAILS { color: var(--fails); background: var(--fails-back); }
.UNDECIDED { color: var(--undecided); background: var(--undecided-back); }
.note {
  border-left: 4px solid var(--undecided); background: var(--card);
  padding: .6rem 1rem; margin: .8rem 0; border-radius: 0 .4rem .4rem 0;
}
figure { margin: 1rem 0 1.4rem; }
figure img {
  display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .4rem; padding: .6rem;
}
figcaption { margin-top: .3rem; }
details {
  margin: .7rem 0; padding: .5rem .9rem; background: var(--card);
  border-radius: .4rem;
}
summary { cursor: pointer; font-weight: 600; font-size: .9rem; }
svg { display: block; overflow: visible; }
svg .axis { stroke: var(--line); stroke-width: 1; }
svg .line { stroke: var(--link); stroke-width: 1.5; fill: none; }
svg .dot { fill: var(--ink); }
svg .span { stroke: var(--ink); stroke-width: 1.6; }
svg .limit { stroke: var(--fails); stroke-width: 1.5; stroke-dasharray: 3 2; }
/* The reasons and remarks under a table. */
.scroll + p { color: var(--soft); font-size: .875rem; }
@media (max-width: 48rem) { .ends { display: block; } }
@media print {
  :root {
    --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --card: #fff;
    --link: #000; --holds: #00664b; --holds-back: #fff; --fails: #a33600;
    --fails-back: #fff; --undecided: #5b5200; --undecided-back: #fff;
  }
  body { font-size: 10pt; }
  main, header { max-width: none; padding: 0; }
  .verdict { border: 1px solid currentColor; }
  .scroll { overflow: visible; }
  .ends { display: block; }
  table { font-size: 8.5pt; }
  details { border: 1px solid var(--line); }
  h2, h3, h4 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  section.run { break-before: page; }
  pre { white-space: pre-wrap; }
}
"""
