
// Charts of a comparison, or of the runs of one variant: of whatever `cells` are
const data = JSON.parse($("data").textContent);
const cells = data.cells ?? [];
// The curve of a single run comes without its band, which is the curve itself
for (const cell of cells) for (const curve of Object.values(cell.curves)) if (curve.length === 2) curve.push(curve[1], curve[1]);
const hidden = new Set();
const FEW = 12; // drawn at first where there are many
const color = i => `var(--c${i % 8})`;
const dash = i => ["", "7 3", "2 3", "8 3 2 3"][Math.floor(i / 8) % 4];
// in the order of the table, without what its search or the legend hides
const listed = () => $("variants") ? [...$("variants").tBodies[0].rows].filter(row => !row.hidden).map(row => +row.dataset.row) : cells.map((cell, i) => i);
const shown = () => listed().filter(i => !hidden.has(i));
const formatValue = v => v === null ? "-" : v.toFixed(4).replace("-", "−");
const formatDifference = v => (v < 0 ? "" : "+") + formatValue(v);
const withPrefix = v => {
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(v) >= size) return +(v / size).toPrecision(3) + " " + letter;
  return String(+v.toPrecision(3));
};
const interval = ([mean, low, high]) => low === null ? formatValue(mean) : `${formatValue(mean)} (95 %: ${formatValue(low)} to ${formatValue(high)})`;

// A scale maps values to pixels and has a list of ticks
function linear([low, high], [from, to], count) {
  if (low === high) { low -= Math.abs(low) / 10 || 0.5; high += Math.abs(high) / 10 || 0.5; }
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= raw * 0.999);
  const ticks = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) ticks.push(+t.toPrecision(12));
  const scale = v => from + (v - low) / (high - low) * (to - from);
  return Object.assign(scale, {ticks});
}
function logarithmic([low, high], range, count) {
  const scale = linear([Math.log10(low) - 0.08, Math.log10(high) + 0.08], range, count);
  const ticks = [], decades = Math.log10(high / low);
  for (let p = Math.floor(Math.log10(low)) - 1; p <= Math.ceil(Math.log10(high)); p++)
    for (const f of decades > 2 ? [1] : decades > 0.6 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) {
      const t = f * 10 ** p;
      if (Math.log10(t) >= Math.log10(low) - 0.08 && Math.log10(t) <= Math.log10(high) + 0.08) ticks.push(t);
    }
  while (ticks.length > 2 * count) for (let k = ticks.length - 2; k > 0; k -= 2) ticks.splice(k, 1);
  return Object.assign(v => scale(Math.log10(v)), {ticks});
}
const extent = values => {
  const found = values.filter(v => v !== null && Number.isFinite(v));
  return found.length ? [Math.min(...found), Math.max(...found)] : [0, 1];
};
const withMargin = ([low, high]) => [low - (high - low) * 0.04, high + (high - low) * 0.04];

function svg(box, height, label, content) {
  const width = Math.max(280, box.clientWidth);
  box.innerHTML = `<svg role="group" aria-label="${escape(label)}" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${content(width)}</svg>`;
  box.querySelector(".mark")?.setAttribute("tabindex", "0"); // one stop of the Tab key; arrows go on
}
const mark = (tip, shape) => `<g class="mark" role="img" tabindex="-1" data-tip="${escape(tip)}" aria-label="${escape(tip)}">${shape}</g>`;
// Colour, shape and dash together are of one variant alone, up to 64; neighbours differ in colour and in shape
function symbol(i, x, y, r, extra = "") {
  const fill = `fill="${color(i)}" ${extra}`, u = r * 1.25;
  return [
    `<circle cx="${x}" cy="${y}" r="${r}" ${fill}/>`,
    `<rect x="${x - r}" y="${y - r}" width="${2 * r}" height="${2 * r}" ${fill}/>`,
    `<path d="M${x} ${y - u}L${x + u} ${y + r}H${x - u}Z" ${fill}/>`,
    `<path d="M${x} ${y - u}L${x + u} ${y}L${x} ${y + u}L${x - u} ${y}Z" ${fill}/>`,
    `<path d="M${x} ${y + u}L${x + u} ${y - r}H${x - u}Z" ${fill}/>`,
    `<path d="M${x - u} ${y - u / 3}h${u * 2 / 3}v${-u * 2 / 3}h${u * 2 / 3}v${u * 2 / 3}h${u * 2 / 3}v${u * 2 / 3}h${-u * 2 / 3}v${u * 2 / 3}h${-u * 2 / 3}v${-u * 2 / 3}h${-u * 2 / 3}Z" ${fill}/>`,
  ][(i + Math.floor(i / 24)) % 6];
}
const key = i => `<svg aria-hidden="true" viewBox="0 0 22 10" width="22" height="10"><line x1="0" x2="22" y1="5" y2="5" stroke="${color(i)}" stroke-width="2" stroke-dasharray="${dash(i)}"/>${symbol(i, 11, 5, 3.5)}</svg>`;
// What a chart shows as a table, and on paper the keys of its marks
function beside(id, list, headings, rows) {
  const figure = $(id).closest("figure");
  figure.querySelector(".keys").innerHTML = list.map(i => `<li>${key(i)} ${escape(cells[i].name)}</li>`).join("");
  const row = ([name, ...values]) => `<tr><th scope="row">${escape(name)}</th>${values.map(v => `<td>${escape(v)}</td>`).join("")}</tr>`;
  const label = escape(figure.querySelector("figcaption").textContent.split(".")[0]);
  const details = figure.querySelector(".values"), fill = () => {
    details.lastElementChild.innerHTML = `<div class="scroll" tabindex="0" role="region" aria-label="Values: ${label}"><table><thead><tr>${headings.map(h => `<th scope="col">${escape(h)}</th>`).join("")}</tr></thead><tbody>${rows().map(row).join("")}</tbody></table></div>`;
  };
  details.ontoggle = () => { if (details.open) fill(); };
  if (details.open) fill();
}
function axes(x, y, left, right, top, bottom, xText, yText, xLabel) {
  const rows = y.ticks.map(t => `<line class="grid" x1="${left}" x2="${right}" y1="${y(t)}" y2="${y(t)}"/>` +
    `<text x="${left - 8}" y="${y(t) + 4}" text-anchor="end">${yText(t)}</text>`).join("");
  const columns = x.ticks.map(t => `<line class="grid" x1="${x(t)}" x2="${x(t)}" y1="${bottom}" y2="${bottom + 4}"/>` +
    `<text x="${x(t)}" y="${bottom + 18}" text-anchor="middle">${xText(t)}</text>`).join("");
  return rows + columns + `<text x="${right}" y="${bottom + 36}" text-anchor="end">${escape(xLabel)}</text>`;
}
const formatTick = t => String(+t.toPrecision(6)).replace("-", "−");

function drawSpread() {
  const list = shown(), row = 30, top = 8, bottom = top + list.length * row;
  svg($("spread-chart"), bottom + 44, `${data.metric} of every run by variant`, width => {
    const longest = Math.max(0, ...list.map(i => cells[i].name.length));
    const left = Math.min(Math.max(60, longest * 7 + 16), width * 0.42), right = width - 16;
    const numbers = list.flatMap(i => [...cells[i].values.map(v => v[1]), ...cells[i].interval, cells[i].published]);
    const x = linear(withMargin(extent(numbers)), [left, right], (right - left) / 70);
    const grid = x.ticks.map(t => `<line class="grid" x1="${x(t)}" x2="${x(t)}" y1="${top}" y2="${bottom}"/>` +
      `<text x="${x(t)}" y="${bottom + 18}" text-anchor="middle">${formatTick(t)}</text>`).join("");
    const rows = list.map((i, k) => {
      const cell = cells[i], y = top + k * row + row / 2, [mean, low, high] = cell.interval;
      const room = Math.floor((left - 16) / 7), name = cell.name.length > room ? cell.name.slice(0, room - 1) + "…" : cell.name;
      let found = `<text class="name" x="${left - 10}" y="${y + 4}" text-anchor="end">${escape(name)}<title>${escape(cell.name)}</title></text>`;
      if (low !== null) found += `<line x1="${x(low)}" x2="${x(high)}" y1="${y}" y2="${y}" stroke="${color(i)}" stroke-width="2"/>`;
      found += cell.values.map(([name, v]) => mark(`${cell.name}, ${name}: ${formatValue(v)}`,
        symbol(i, x(v), y, 4.2, 'fill-opacity=".5"'))).join("");
      if (mean !== null) found += mark(`${cell.name}: ${interval(cell.interval)}`,
        `<rect x="${x(mean) - 1.5}" y="${y - 8}" width="3" height="16" fill="${color(i)}"/>`);
      if (cell.published !== null) found += mark(`${cell.name}, published: ${formatValue(cell.published)}`,
        `<path d="M${x(cell.published)} ${y - 6}l6 6l-6 6l-6 -6z" fill="none" stroke="var(--ink)" stroke-width="1.5"/>`);
      return found;
    }).join("");
    return grid + rows + `<text x="${right}" y="${bottom + 36}" text-anchor="end">${escape(data.metric)}, ${data.split} split</text>`;
  });
  beside("spread-chart", [], ["", "mean", "95 %: low", "high", "published", "runs"], () => list.map(i =>
    [cells[i].name, ...cells[i].interval.map(formatValue), formatValue(cells[i].published), cells[i].values.map(([name, v]) => `${name}: ${formatValue(v)}`).join("; ")]));
}

function drawCurves() {
  const name = $("curve").value, list = shown().filter(i => cells[i].curves[name]);
  svg($("curve-chart"), 340, `${name} by number of training samples and variant`, width => {
    const left = 56, right = width - 12, top = 12, bottom = 290;
    const all = k => list.flatMap(i => cells[i].curves[name][k]);
    const x = linear([0, extent(all(0))[1]], [left, right], (right - left) / 80);
    const y = linear(withMargin(extent([...all(2), ...all(3)])), [bottom, top], 6);
    const path = (xs, ys) => xs.map((v, k) => `${k ? "L" : "M"}${x(v).toFixed(1)} ${y(ys[k]).toFixed(1)}`).join("");
    const bands = list.map(i => {
      const [xs, , low, high] = cells[i].curves[name];
      return `<path d="${path(xs, low)}${path([...xs].reverse(), [...high].reverse()).replace("M", "L")}Z" fill="${color(i)}" opacity=".13"/>`;
    }).join("");
    const lines = list.map(i => {
      const [xs, mean] = cells[i].curves[name];
      const line = `<path d="${path(xs, mean)}" fill="none" stroke="${color(i)}" stroke-width="2" stroke-linejoin="round" stroke-dasharray="${dash(i)}"/>`;
      const last = mean.length - 1;
      return line + mark(`${cells[i].name}, ${withPrefix(xs[last])} samples: ${name} ${formatValue(mean[last])}`, symbol(i, x(xs[last]), y(mean[last]), 3.5));
    }).join("");
    return axes(x, y, left, right, top, bottom, withPrefix, formatTick, "training samples") + bands + lines +
      `<rect data-follow="" x="${left}" y="${top}" width="${right - left}" height="${bottom - top}" fill="none" pointer-events="all"/>`;
  });
  const last = values => formatValue(values[values.length - 1]);
  beside("curve-chart", list, ["", "samples", `${name}, last`, "lowest", "highest"], () => list.map(i => {
    const [xs, mean, low, high] = cells[i].curves[name];
    return [cells[i].name, withPrefix(xs[xs.length - 1]), last(mean), last(low), last(high)];
  }));
  const cover = $("curve-chart").querySelector("[data-follow]");
  cover.parentNode.insertBefore(cover, cover.parentNode.querySelector(".mark"));
  cover.addEventListener("pointermove", event => {
    const box = cover.getBoundingClientRect(), end = extent(list.flatMap(i => cells[i].curves[name][0]))[1];
    const at = (event.clientX - box.left) / box.width * end;
    const lines = list.map(i => {
      const [xs, mean] = cells[i].curves[name];
      let near = 0;
      xs.forEach((v, k) => { if (Math.abs(v - at) < Math.abs(xs[near] - at)) near = k; });
      return [mean[near], `${cells[i].name} ${formatValue(mean[near])}`];
    }).sort((a, b) => b[0] - a[0]).map(found => found[1]);
    if (lines.length) showTip(`${withPrefix(at)} samples\n${lines.join("\n")}`, event.clientX, event.clientY);
  });
  cover.addEventListener("pointerleave", hideTip);
}

const COSTS = {
  parameters: "parameters", flops_per_example: "FLOPs per example", wall_time_seconds: "training time, s",
  train_samples_per_second: "training samples/s", peak_memory_bytes: "peak memory, B", energy_joules: "training energy, J",
};
function drawCost() {
  const kind = $("cost-kind").value, list = shown().filter(i => cells[i].costs[kind] > 0 && cells[i].interval[0] !== null);
  svg($("cost-chart"), 360, `${data.metric} by ${COSTS[kind]} and variant`, width => {
    const left = 56, right = width - 16, top = 12, bottom = 310;
    const x = logarithmic(list.length ? extent(list.map(i => cells[i].costs[kind])) : [1, 10], [left, right], Math.max(3, (right - left) / 130));
    const y = linear(withMargin(extent(list.flatMap(i => cells[i].interval))), [bottom, top], 6);
    const marks = list.map(i => {
      const cell = cells[i], px = x(cell.costs[kind]), [mean, low, high] = cell.interval;
      const line = low === null ? "" : `<line x1="${px}" x2="${px}" y1="${y(low)}" y2="${y(high)}" stroke="${color(i)}" stroke-width="1.5" opacity=".6"/>`;
      return line + mark(`${cell.name}\n${data.metric} ${interval(cell.interval)}\n${COSTS[kind]}: ${withPrefix(cell.costs[kind])}`, symbol(i, px, y(mean), 6));
    }).join("");
    // the step along which quality rises with cost, and the names on it where they have room
    const front = paretoFront(list, kind), steps = front.map((i, k) => `${k ? `H${x(cells[i].costs[kind])}V` : `M${x(cells[i].costs[kind])} `}${y(cells[i].interval[0])}`).join("");
    const line = `<path d="${steps}" fill="none" stroke="var(--soft)" stroke-width="1.2" stroke-dasharray="3 3"/>`;
    let free = [];
    const names = front.map(i => {
      const px = x(cells[i].costs[kind]), py = y(cells[i].interval[0]), wide = cells[i].name.length * 6.5, before = px + wide + 10 > right;
      const from = before ? px - wide - 10 : px + 10, box = [from, from + wide, py - 7];
      if (from < left || free.some(o => box[0] < o[1] && o[0] < box[1] && Math.abs(o[2] - box[2]) < 13)) return "";
      free.push(box);
      return `<text class="name" x="${before ? px - 10 : px + 10}" y="${py - 7}" text-anchor="${before ? "end" : "start"}">${escape(cells[i].name)}</text>`;
    }).join("");
    return axes(x, y, left, right, top, bottom, withPrefix, formatTick, COSTS[kind]) + line + marks + names;
  });
  const front = paretoFront(list, kind);
  beside("cost-chart", list, ["", COSTS[kind], data.metric, "on the Pareto front"], () => list.map(i =>
    [cells[i].name, withPrefix(cells[i].costs[kind]), interval(cells[i].interval), front.includes(i) ? "yes" : "no"]));
}
// From the cheapest on: those that no other is both cheaper and better than
function paretoFront(list, kind) {
  const dear = kind === "train_samples_per_second" ? -1 : 1, good = data.lower ? -1 : 1, front = [];
  for (const i of [...list].sort((a, b) => dear * (cells[a].costs[kind] - cells[b].costs[kind]) || good * (cells[b].interval[0] - cells[a].interval[0])))
    if (!front.length || good * cells[i].interval[0] > good * cells[front[front.length - 1]].interval[0]) front.push(i);
  return front;
}

function drawPredictions() {
  const found = data.predictions;
  if (!found) return;
  if (found.kind === "confusion") drawConfusion(found); else drawClasses(found);
}
function drawConfusion(found) {
  const i = $("predicted-cell").value, table = found.cells[i], totals = found.totals[i], names = found.classes, n = names.length;
  const longest = Math.max(...names.map(name => name.length)), gap = Math.min(150, longest * 7 + 14);
  const box = $("predictions-chart"), size = Math.max(16, Math.min(46, (box.clientWidth - gap - 8) / n));
  const width = gap + n * size + 8, height = gap + n * size + 30;
  const squares = table.flatMap((row, t) => row.map((count, p) => {
    const share = totals[t] ? count / totals[t] : 0, x = gap + p * size, y = gap + t * size;
    const fill = `fill="${p === t ? "var(--c2)" : "var(--c1)"}" fill-opacity="${(share ** 0.6).toFixed(3)}"`;
    const text = size >= 30 && share >= 0.005 ? `<text x="${x + size / 2}" y="${y + size / 2 + 4}" text-anchor="middle" class="name">${Math.round(share * 100)}</text>` : "";
    const tip = `${names[t]} predicted as ${names[p]}: ${count.toLocaleString("en")} of ${totals[t].toLocaleString("en")} (${(share * 100).toFixed(1)} %)`;
    return `<g data-tip="${escape(tip)}"><rect x="${x + 0.5}" y="${y + 0.5}" width="${size - 1}" height="${size - 1}" stroke="var(--line)" stroke-width=".5" ${fill}/>${text}</g>`;
  })).join("");
  const clip = name => name.length * 7 + 14 > gap ? name.slice(0, Math.floor((gap - 20) / 7)) + "…" : name;
  const labels = names.map((name, k) => `<text class="name" x="${gap - 8}" y="${gap + k * size + size / 2 + 4}" text-anchor="end">${escape(clip(name))}</text>` +
    `<text class="name" transform="translate(${gap + k * size + size / 2 + 4} ${gap - 8}) rotate(-90)">${escape(clip(name))}</text>`).join("");
  beside("predictions-chart", [], ["true", "predicted", "samples", "of", "share"], () => table.flatMap((row, t) => row.map((count, p) => [names[t], names[p], count, totals[t]])
    .filter(([t, p, count]) => count && t !== p)).sort((a, b) => b[2] - a[2]).slice(0, 200).map(row => [...row, `${(100 * row[2] / row[3]).toFixed(1)} %`]));
  box.innerHTML = `<svg role="img" aria-label="Confusion matrix of ${escape(cells[i].name)}" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${labels}${squares}` +
    `<text x="${gap}" y="${height - 8}">columns: predicted; rows: true</text></svg>`;
}
function drawClasses(found) {
  const list = shown().filter(i => found.cells[i]), names = found.classes;
  const mean = k => list.reduce((sum, i) => sum + (found.cells[i][k] ?? 0), 0);
  const order = names.map((name, k) => k).filter(k => list.some(i => found.cells[i][k] !== null)).sort((a, b) => mean(b) - mean(a));
  const row = order.length > 60 ? 18 : 24, top = 8, bottom = top + order.length * row;
  svg($("predictions-chart"), bottom + 44, "average precision by class and variant", width => {
    const longest = Math.max(0, ...names.map(name => name.length));
    const left = Math.min(longest * 7 + 16, width * 0.42), right = width - 16, room = Math.floor((left - 16) / 7);
    const x = linear([0, 1], [left, right], Math.max(3, Math.min(10, (right - left) / 90)));
    const grid = x.ticks.map(t => `<line class="grid" x1="${x(t)}" x2="${x(t)}" y1="${top}" y2="${bottom}"/>` +
      `<text x="${x(t)}" y="${bottom + 18}" text-anchor="middle">${formatTick(t)}</text>`).join("");
    return grid + order.map((k, n) => {
      const y = top + n * row + row / 2, name = names[k].length > room ? names[k].slice(0, room - 1) + "…" : names[k];
      return `<text class="name" x="${left - 10}" y="${y + 4}" text-anchor="end">${escape(name)}</text>` + list.map(i => {
        const v = found.cells[i][k];
        return v === null ? "" : `<g data-tip="${escape(`${names[k]}, ${cells[i].name}: ${formatValue(v)}`)}">${symbol(i, x(v), y, 4.5)}</g>`;
      }).join("");
    }).join("") + `<text x="${right}" y="${bottom + 36}" text-anchor="end">average precision</text>`;
  });
  beside("predictions-chart", list, ["class", ...list.map(i => cells[i].name)], () => order.map(k => [names[k], ...list.map(i => formatValue(found.cells[i][k]))]));
}

function fillDifferences() {
  const reference = +$("reference").value;
  document.querySelectorAll("[data-kind]").forEach(span => {
    const pair = `${span.dataset.row},${reference}`, found = data.differences[pair];
    if (!found || found[0] === null) span.textContent = "-";
    else if (span.dataset.kind === "verdict") span.textContent = data.verdicts[pair];
    else span.textContent = formatDifference(found[0]) + (found[1] === null ? "" : ` ± ${formatValue((found[2] - found[1]) / 2)}`);
  });
}

// Tooltips follow the pointer, touch and keyboard focus
function showTip(text, x, y) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(x + 12, innerWidth - box.width - 6)) + "px";
  tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(6, y - box.height - 12) : y + 18) + "px";
}
const hideTip = () => { $("tip").hidden = true; };
const tipTarget = event => event.target.closest?.("[data-tip]");
for (const kind of ["pointerover", "pointermove"])
  document.addEventListener(kind, event => { const found = tipTarget(event); if (found) showTip(found.dataset.tip, event.clientX, event.clientY); });
document.addEventListener("pointerout", event => { if (tipTarget(event)) hideTip(); });
document.addEventListener("focusin", event => {
  const found = tipTarget(event);
  if (found) { const box = found.getBoundingClientRect(); showTip(found.dataset.tip, box.right, box.top); }
});
document.addEventListener("focusout", hideTip);
document.addEventListener("keydown", event => {
  if (event.key === "Escape") hideTip();
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key], from = event.target.closest?.(".mark");
  if (!step || !from) return;
  event.preventDefault();
  const marks = [...from.closest("svg").querySelectorAll(".mark")], to = marks[(marks.indexOf(from) + step + marks.length) % marks.length];
  from.setAttribute("tabindex", "-1");
  to.setAttribute("tabindex", "0");
  to.focus();
});

function options(id, values, name, chosen) {
  $(id).innerHTML = values.map(v => `<option value="${escape(v)}"${v === chosen ? " selected" : ""}>${escape(name(v))}</option>`).join("");
}
function draw() {
  if (!cells.length) return;
  const count = listed().length, drawn = shown().length;
  $("drawn").textContent = drawn < count ? `${drawn} of ${count} are drawn.` : "";
  for (const [id, chart] of [["spread-chart", drawSpread], ["curve-chart", drawCurves], ["cost-chart", drawCost], ["predictions-chart", drawPredictions]]) if ($(id)) chart();
}
function drawOnly(chosen) {
  hidden.clear();
  cells.forEach((cell, i) => { if (!chosen.includes(i)) hidden.add(i); });
  $("legend").querySelectorAll("button").forEach(button => button.setAttribute("aria-pressed", String(!hidden.has(+button.dataset.cell))));
  draw();
}

if (cells.length) {
  document.querySelectorAll("[data-key]").forEach(place => { place.innerHTML = key(+place.dataset.key); });
  $("legend").innerHTML = cells.map((cell, i) => `<button type="button" aria-pressed="true" data-cell="${i}">${key(i)}${escape(cell.name)}</button>`).join("");
  $("legend").addEventListener("click", event => {
    const i = +(event.target.closest("button")?.dataset.cell ?? NaN);
    if (!Number.isNaN(i)) drawOnly(cells.map((cell, k) => k).filter(k => hidden.has(k) === (k === i)));
  });
  const curves = [...new Set(cells.flatMap(cell => Object.keys(cell.curves)))];
  options("curve", curves, name => name, curves.includes(`val/${data.metric}`) ? `val/${data.metric}` : "train/loss");
  options("cost-kind", Object.keys(COSTS).filter(kind => cells.some(cell => cell.costs[kind] > 0)), kind => COSTS[kind]);
  $("curve").addEventListener("change", drawCurves);
  $("cost-kind").addEventListener("change", drawCost);
  if ($("reference")) {
    options("reference", cells.map((cell, i) => i), i => cells[i].name, data.reference);
    $("reference").addEventListener("change", fillDifferences);
  }
  if (data.predictions) {
    $("no-predictions").hidden = true;
    $("predicted").hidden = false;
    const found = data.predictions, some = found.classes.length < found.of ? ` Shows the ${found.classes.length} of ${found.of} classes with the lowest recall.` : "";
    const caption = $("predicted").querySelector("figcaption");
    if (found.kind === "confusion") {
      $("choose-cell").hidden = false;
      options("predicted-cell", Object.keys(found.cells), i => cells[i].name);
      $("predicted-cell").addEventListener("change", drawPredictions);
      caption.textContent = `Percentage of each true class, over all seeds: correct predictions in green, confusions in orange.${some} The table has the confusions, the most frequent first.`;
    } else caption.textContent = "Average precision of each class with positive samples, averaged over seeds.";
  }
  const best = () => listed().slice(0, FEW);
  $("draw-all").addEventListener("click", () => drawOnly(cells.map((cell, i) => i)));
  $("draw-few").addEventListener("click", () => drawOnly(best()));
  $("draw-all").hidden = $("draw-few").hidden = cells.length <= FEW;
  $("variants")?.addEventListener("rows", draw);
  if ($("reference")) fillDifferences();
  if (cells.length > 2 * FEW) drawOnly([...new Set([...best(), data.reference])]); else draw();
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); });
}
