"""The look of a report: light and dark, from a phone's width to a desktop's."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f6f7f9; --line: #dfe3e8; --text: #1b1f24; --quiet: #59636e;
  --faint: #8c959f; --good: #1a7f37; --good-ground: #e3f5e8; --bad: #b42318;
  --bad-ground: #fdeceb; --neutral: #59636e; --neutral-ground: #eceff2; --heat: 0, 114, 178;
  --shade: rgba(0, 0, 0, .16);
  --series-1: #0072b2; --series-2: #e69f00; --series-3: #009e73; --series-4: #cc79a7;
  --series-5: #56b4e9; --series-6: #d55e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1318; --raised: #181e25; --line: #2d353f; --text: #e4e8ec; --quiet: #9ba6b2;
    --faint: #6b7683; --good: #4ac26b; --good-ground: #12301c; --bad: #ff8a80;
    --bad-ground: #3a1715; --neutral: #9ba6b2; --neutral-ground: #242c35;
    --heat: 86, 180, 233; --shade: rgba(0, 0, 0, .7);
    --series-1: #56b4e9; --series-2: #f0b429; --series-3: #2fbf95; --series-4: #dd9bc0;
    --series-5: #8fd0f5; --series-6: #ff8b3d;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
main { max-width: 960px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
p, li, figcaption { text-wrap: pretty; }
h2 {
  font-size: 18px; line-height: 1.3; margin: 44px 0 12px; padding-top: 14px;
  border-top: 1px solid var(--line);
}
h3 { font-size: 14px; margin: 24px 0 8px; }
p { margin: 8px 0; max-width: 72ch; }
.quiet, figcaption, .rest { color: var(--quiet); font-size: 13px; }
.kicker { color: var(--quiet); font-size: 13px; margin: 0 0 4px; }
.subject { color: var(--quiet); margin: 4px 0 20px; overflow-wrap: anywhere; }

.verdict { border-radius: 10px; padding: 16px 18px; border: 1px solid; }
.verdict.good { background: var(--good-ground); border-color: var(--good); }
.verdict.bad { background: var(--bad-ground); border-color: var(--bad); }
.verdict.neutral { background: var(--neutral-ground); border-color: var(--line); }
.verdict p { margin: 4px 0 0; max-width: none; overflow-wrap: anywhere; }
.status { font-weight: 700; font-size: 17px; letter-spacing: .02em; }
.good .status { color: var(--good); } .bad .status { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 16px 0 20px; }
.tile {
  background: var(--raised); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 14px; min-width: 0;
}
.tile b { display: block; font-size: 20px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--quiet); font-size: 13px; overflow-wrap: anywhere; }

.scroll {
  overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; margin: 10px 0;
  /* A shade at each edge beyond which there is more to scroll to. */
  background:
    linear-gradient(to right, var(--ground) 40%, transparent) 0 0 / 40px 100% no-repeat local,
    linear-gradient(to left, var(--ground) 40%, transparent) 100% 0 / 40px 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) 0 0 / 14px 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) 100% 0 / 14px 100% no-repeat scroll;
}
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 7px 14px; vertical-align: top; }
th { color: var(--quiet); font-weight: 600; font-size: 13px; white-space: nowrap; }
tbody tr { border-top: 1px solid var(--line); }
td.number, th.number {
  text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
}
.gates td:first-child, .numbered td:first-child { font-weight: 700; }
.gates .good td:first-child { color: var(--good); }
.gates .bad td { color: var(--bad); font-weight: 600; }
tr.bad { background: var(--bad-ground); }
.digests td:last-child {
  font: 12px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; min-width: 24ch;
}
td:first-child { overflow-wrap: anywhere; min-width: 5.5em; }
.names td:first-child { min-width: 9em; }
.prose td { overflow-wrap: anywhere; } .prose td:nth-child(n + 2) { min-width: 11em; }
.gates td:first-child, .numbered td:first-child { min-width: 0; width: 1em; padding-right: 0; }
.numbered td:first-child { color: var(--series-6); }
.numbered td:nth-child(2) { overflow-wrap: anywhere; min-width: 11em; }
dl { display: grid; gap: 5px 40px; margin: 10px 0; }
dl.two-columns { grid-template-columns: 1fr 1fr; }
dl div { display: grid; grid-template-columns: 14em 1fr; gap: 16px; min-width: 0; }
dl.two-columns div { grid-template-columns: 7.5em 1fr; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 0 40px; align-items: start; }
ul { margin: 8px 0; padding-left: 20px; } li { margin: 4px 0; overflow-wrap: anywhere; }
pre, code, .digest { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre {
  background: var(--raised); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; margin: 10px 0; white-space: pre-wrap; overflow-wrap: anywhere;
}
details { margin: 12px 0; }
summary { cursor: pointer; font-weight: 600; font-size: 14px; }

figure { margin: 10px 0; }
.plot { display: block; width: 100%; height: auto; font-family: inherit; }
.narrow { display: none; max-width: 460px; }
.square .plot { display: block; max-width: 380px; }
.plotted { display: grid; grid-template-columns: minmax(0, 380px) 1fr; gap: 0 32px; }

.cards { display: grid; grid-template-columns: repeat(3, 1fr); gap: 14px; margin: 14px 0; }
.cards.wide-cards { grid-template-columns: 1fr 1fr; }
.card {
  border: 1px solid var(--line); border-radius: 10px; padding: 12px; min-width: 0;
  background: var(--raised);
}
.card.bad { border-color: var(--bad); }
.card header {
  display: flex; justify-content: space-between; align-items: baseline; gap: 10px;
  margin-bottom: 10px; font-size: 13px;
}
.card header span:first-child {
  font-weight: 600; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
.badge { flex: none; color: var(--quiet); font-variant-numeric: tabular-nums; }
.bad .badge { color: var(--bad); font-weight: 600; }
.answers { display: grid; grid-template-columns: 96px 1fr; gap: 14px; }
.card img { display: block; width: 100%; height: auto; border-radius: 6px; background: #808080; }
.maps { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
/* Two by two: the difference, which is drawn on the image, below it; one map below the other. */
.wide-cards .maps { grid-template-columns: repeat(2, 1fr); }
.wide-cards .maps figure:last-child { order: 1; }
.wide-cards .maps figure:nth-child(3) { order: 2; }
.maps figure { margin: 0; min-width: 0; } .maps figcaption { margin-top: 3px; font-size: 12px; }
.ranking { min-width: 0; }
.ranking h4 { font-size: 12px; margin: 0 0 2px; color: var(--quiet); font-weight: 600; }
.ranking .package { margin-top: 10px; }
.rank {
  display: grid; grid-template-columns: 1fr max-content; gap: 8px; font-size: 13px;
  line-height: 1.35; padding-bottom: 4px; position: relative; margin-bottom: 3px;
}
.rank span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.rank span { font-variant-numeric: tabular-nums; }
.rank i {
  position: absolute; left: 0; bottom: 0; height: 3px; border-radius: 2px;
  background: var(--series-1);
}
.package .rank i { background: var(--series-2); }
.legend { display: flex; flex-wrap: wrap; gap: 3px 14px; margin-top: 10px; font-size: 12px; }
.legend span { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.swatch {
  flex: none; width: 11px; height: 11px; border-radius: 3px; border: 1px solid var(--faint);
}

.beside { display: flex; flex-wrap: wrap; gap: 0 24px; align-items: flex-start; }
.beside > div { min-width: 0; max-width: 100%; } .beside > div + div { flex: 1 1 240px; }
.confusion { width: auto; font-size: 12px; }
.confusion th, .confusion td { padding: 4px 6px; text-align: right; border: 0; }
.confusion tbody td { text-align: center; }
.confusion td { min-width: 40px; font-variant-numeric: tabular-nums; }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
.confusion thead th:first-child { writing-mode: initial; transform: none; }
.confusion tbody th {
  position: sticky; left: 0; background: var(--ground); font-weight: 500; padding-left: 12px;
}
.confusion tbody tr { border: 0; }
.confusion th span {
  display: block; max-height: 11em; max-width: 11em; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap;
}

@media (max-width: 760px) {
  body { font-size: 16px; }
  main { padding: 18px 16px 48px; }
  h1 { font-size: 21px; }
  h2 { margin-top: 32px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; }
  .columns, .plotted { grid-template-columns: 1fr; }
  .cards, .cards.wide-cards { grid-template-columns: 1fr; }
  dl, dl.two-columns { grid-template-columns: 1fr; gap: 7px; }
  dl div, dl.two-columns div { grid-template-columns: 38% 1fr; gap: 12px; }
  dt, dd { font-size: 14px; overflow-wrap: anywhere; }
  th, td { padding: 7px 10px; }
  .wide { display: none; }
  .narrow { display: block; margin: 0 auto; }
}
@media (min-width: 480px) and (max-width: 760px) {
  .maps, .wide-cards .maps { grid-template-columns: repeat(4, 1fr); }
  .wide-cards .maps figure:nth-child(n) { order: 0; }
}
@media print {
  body { font-size: 12px; } .card, figure, .scroll { break-inside: avoid; }
}
"""
