"use strict";
// An hour of minute values as charts by uPlot, with what changed as marks, and a table of the
// same for those who do not see charts.
const Charts = (() => {
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const TONES = ["--blue", "--amber", "--green", "--violet", "--red", "--grey"];

  function marks(times) {
    return { hooks: { draw: [(plot) => {
      plot.ctx.save();
      plot.ctx.strokeStyle = colour("--red");
      plot.ctx.globalAlpha = .5;
      for (const time of times) {
        const x = Math.round(plot.valToPos(time, "x", true));
        if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
        plot.ctx.beginPath();
        plot.ctx.moveTo(x, plot.bbox.top);
        plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
        plot.ctx.stroke();
      }
      plot.ctx.restore();
    }] } };
  }

  function draw(id, title, minutes, lines, times, show) {
    const place = document.getElementById(id);
    const width = Math.max(240, place.clientWidth);
    const data = [minutes.map((m) => m.time_s), ...lines.map(([, of]) => minutes.map((m) => of(m) ?? null))];
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
    drawn.get(id)?.destroy();
    place.replaceChildren();
    const options = {
      width, height: 210, title, plugins: [marks(times)], cursor: { drag: { x: true, y: false } },
      // Always a whole hour: a single minute would otherwise be drawn on an axis of years.
      scales: { x: { range: () => [minutes.at(-1).time_s - 3540, minutes.at(-1).time_s + 60] }, y: { range: (_, __, high) => [0, (high || 1) * 1.1] } },
      axes: [{ ...axis, values: [[60, "{HH}:{mm}", null, null, null, null, null, null, 1]] }, { ...axis, size: 62, values: (_, values) => values.map(show) }],
      series: [{}, ...lines.map(([label, , dash], i) => ({ label, stroke: colour(TONES[i % TONES.length]), width: 2, dash: dash ? [5, 4] : undefined,
        points: { show: minutes.length < 3 }, value: (_, v) => v === null ? "–" : show(v) }))],
    };
    drawn.set(id, new uPlot(options, data, place));
  }

  function table(id, minutes, show) {
    const rows = minutes.slice(-10).reverse().map((m) => {
      const row = document.createElement("tr");
      const values = [new Date(1000 * m.time_s).toLocaleTimeString(), m.requests_per_s.toFixed(1), show(m.observed.p50_s), show(m.observed.p95_s),
        show(m.predicted.p50_s), m.error_ratio === null ? "–" : `${Math.round(100 * m.error_ratio)} %`, m.state.replaceAll("_", " ")];
      row.append(...values.map((value) => { const cell = document.createElement("td"); cell.textContent = value; return cell; }));
      return row;
    });
    document.getElementById(id).tBodies[0].replaceChildren(...rows);
  }

  function show(minutes, events, seconds, percent) {
    const times = events.filter((e) => e.severity !== "info").map((e) => e.time_s);
    const addresses = [...new Set(minutes.flatMap((m) => Object.keys(m.endpoints)))].slice(0, TONES.length);
    draw("chart-ttft", "TTFT", minutes, [["observed, median", (m) => m.observed.p50_s], ["observed, 95 %", (m) => m.observed.p95_s],
      ["predicted, median", (m) => m.predicted.p50_s, true], ["predicted, 95 %", (m) => m.predicted.p95_s, true]], times, seconds);
    draw("chart-error", "error of predictions, and TTFT over the fallback's", minutes,
      [["median error", (m) => m.error_ratio], ["TTFT over the fallback's", (m) => m.gain_ratio]], times, (v) => v.toFixed(2));
    draw("chart-load", "requests a minute by endpoint", minutes, addresses.map((a) => [a, (m) => m.endpoints[a]?.requests]), times, (v) => `${Math.round(v)}`);
    draw("chart-hits", "prompt tokens found in cache, by endpoint", minutes, addresses.map((a) => [a, (m) => m.endpoints[a]?.hit_ratio]), times, percent);
    table("minutes", minutes, seconds);
  }

  return { show };
})();
