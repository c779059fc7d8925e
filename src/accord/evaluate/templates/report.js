"use strict";
(() => {
  document.documentElement.classList.add("js");
  const SVG = "http://www.w3.org/2000/svg";
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const tip = document.getElementById("tip");

  // Everything that shows text of a run goes through textContent, never through markup.
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, x + 14), window.innerWidth - box.width - 8);
    const top = y - box.height - 12 > 8 ? y - box.height - 12 : y + 18;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  };
  const hide = () => { tip.hidden = true; };
  const write = (value) => {
    const size = Math.abs(value);
    const text = value && (size < 1e-3 || size >= 1e7) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
    return text.replace(/-/g, "\u2212");
  };

  // A <title> inside an SVG is a browser tooltip over the whole drawing; its words move to a label instead.
  for (const svg of document.querySelectorAll("svg[role=img]")) {
    const title = svg.querySelector("title");
    svg.setAttribute("aria-label", title.textContent);
    svg.removeAttribute("aria-labelledby");
    title.remove();
  }

  const onMark = (event) => {
    const mark = event.target.closest("[data-tip]");
    if (mark) show(mark.dataset.tip, event.clientX, event.clientY);
    else if (!event.target.closest(".line-chart")) hide();
  };
  document.addEventListener("pointermove", onMark);
  document.addEventListener("pointerdown", onMark);
  document.addEventListener("scroll", hide, { passive: true });

  for (const [identity, chart] of Object.entries(charts)) {
    const svg = document.querySelector(`[data-chart="${identity}"] svg`);
    const cursor = svg.querySelector(".cursor");
    const [left, right, top, bottom] = chart.box;
    const toX = (step) => left + (step - chart.x[0]) / (chart.x[1] - chart.x[0]) * (right - left);
    const toY = (value) => bottom + (value - chart.y[0]) / (chart.y[1] - chart.y[0]) * (top - bottom);
    const steps = [...new Set(chart.series.flatMap((series) => series.points.map((point) => point[0])))].sort((a, b) => a - b);
    const nearest = (points, step) => points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
    let at = steps.length;

    const draw = (step, x, y) => {
      cursor.replaceChildren();
      const line = document.createElementNS(SVG, "line");
      for (const [key, value] of Object.entries({ x1: toX(step), x2: toX(step), y1: top, y2: bottom })) line.setAttribute(key, value);
      cursor.append(line);
      const words = [`step ${step}`];
      for (const series of chart.series) {
        const [found, value] = nearest(series.points, step);
        const dot = document.createElementNS(SVG, "circle");
        for (const [key, entry] of Object.entries({ cx: toX(found), cy: toY(value), r: 3.5, class: series.css })) dot.setAttribute(key, entry);
        cursor.append(dot);
        words.push(`${series.name}: ${write(value)}${found === step ? "" : ` (step ${found})`}`);
      }
      show(words.join("\n"), x, y);
    };
    const leave = () => { cursor.replaceChildren(); hide(); };
    const follow = (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const wanted = chart.x[0] + (x - left) / (right - left) * (chart.x[1] - chart.x[0]);
      draw(nearest(steps.map((step) => [step]), wanted)[0], event.clientX, event.clientY);
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length }[event.key];
      if (!move) return;
      event.preventDefault();
      at = Math.min(Math.max(at + move, 0), steps.length - 1);
      const box = svg.getBoundingClientRect();
      draw(steps[at], box.left + toX(steps[at]) / svg.viewBox.baseVal.width * box.width, box.top + 30);
    });
  }

  const browser = document.getElementById("browser");
  if (!browser) return;
  const samples = [...browser.querySelectorAll(".sample")];
  const choice = browser.querySelector("[name=prompt]");
  const order = browser.querySelector("[name=order]");
  const search = browser.querySelector("[name=search]");
  const filter = browser.querySelector("[name=shown]");
  const nothing = browser.querySelector(".none");
  const position = browser.querySelector(".position");
  let shown = samples;
  let current = 0;

  const gain = (sample) => sample.dataset.gain === "" ? NaN : Number(sample.dataset.gain);
  const texts = new Map(samples.map((sample) => [sample, sample.textContent.toLowerCase()]));
  const passes = (sample) => {
    const change = gain(sample);
    const kind = { all: true, better: change > 0, worse: change < 0, same: change === 0, cut: sample.dataset.cut === "yes" }[filter.value];
    return kind && search.value.toLowerCase().split(/\s+/).every((word) => texts.get(sample).includes(word));
  };
  const arrange = () => {
    const sign = { gain: -1, loss: 1 }[order.value];
    const kept = samples.filter(passes);
    const known = kept.filter((sample) => !Number.isNaN(gain(sample)));
    const rest = kept.filter((sample) => Number.isNaN(gain(sample)));
    shown = sign ? [...known.sort((a, b) => sign * (gain(a) - gain(b))), ...rest] : kept;
    choice.replaceChildren(...shown.map((sample, index) => new Option(`${index + 1}. ${sample.dataset.title}`, index)));
    go(0);
  };
  const go = (index) => {
    nothing.hidden = shown.length > 0;
    current = shown.length ? (index + shown.length) % shown.length : -1;
    for (const sample of samples) sample.hidden = sample !== shown[current];
    choice.value = current;
    position.textContent = shown.length === samples.length ? `${current + 1} of ${shown.length}` : `${current + 1} of ${shown.length} (${samples.length} in all)`;
  };
  choice.addEventListener("change", () => go(Number(choice.value)));
  order.addEventListener("change", arrange);
  filter.addEventListener("change", arrange);
  search.addEventListener("input", arrange);
  for (const button of browser.querySelectorAll("button")) button.addEventListener("click", () => go(current + Number(button.value)));
  browser.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, k: -1, j: 1 }[event.key];
    if (!move || ["SELECT", "INPUT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(current + move);
  });
  arrange();
})();
