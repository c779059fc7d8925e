"use strict";
(() => {
  const source = document.getElementById("explore-data");
  if (!source) return;
  document.documentElement.classList.add("js");
  const data = JSON.parse(source.textContent);
  const [X, Y, CLUSTER, SET, LANGUAGE, MODEL, LENGTH, TURNS, TOXIC, ID, TEXT] = [...Array(11).keys()];
  const points = data.points;
  const find = (id) => document.getElementById(id);
  const canvas = find("atlas-canvas");
  const pen = canvas.getContext("2d");
  const frame = find("atlas-map");
  const form = find("atlas-filters");
  const tip = find("atlas-tip");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const page = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // The golden angle keeps the colours of neighbours in the list apart; lightness follows the theme.
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen && chosen !== "system" ? chosen === "dark" : dark.matches;
  };
  const colour = (cluster) => `hsl(${Math.round(cluster * 137.508 + 210) % 360} ${isDark() ? "58% 66%" : "56% 42%"})`;

  // ---- state
  let view = { scale: 1, x: 0, y: 0 };
  let lasso = null;   // pixels of the line being drawn
  let inside = null;  // Set of positions, or null: no lasso
  let shown = points.map((_, place) => place);
  let listed = 25;

  // ---- selection
  const readFilters = () => Object.fromEntries(new FormData(form).entries());
  const passes = (point, wanted, words) =>
    (!wanted.cluster || point[CLUSTER] === Number(wanted.cluster)) &&
    (!wanted.set || point[SET] === Number(wanted.set)) &&
    (!wanted.language || point[LANGUAGE] === Number(wanted.language)) &&
    (!wanted.model || point[MODEL] === Number(wanted.model)) &&
    (!wanted.shortest || point[LENGTH] >= Number(wanted.shortest)) &&
    (!wanted.longest || point[LENGTH] <= Number(wanted.longest)) &&
    (!wanted.toxic || (point[TOXIC] !== null && point[TOXIC] >= Number(wanted.toxic))) &&
    words.every((word) => point[TEXT].toLowerCase().includes(word));
  const select = () => {
    const wanted = readFilters();
    const words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean);
    shown = [];
    points.forEach((point, place) => {
      if ((!inside || inside.has(place)) && passes(point, wanted, words)) shown.push(place);
    });
    listed = 25;
    find("atlas-count").textContent = `${shown.length.toLocaleString("en")} of ${points.length.toLocaleString("en")} conversations`;
    for (const row of document.querySelectorAll("#cluster-table tbody tr")) {
      row.setAttribute("aria-selected", String(Boolean(wanted.cluster) && row.dataset.cluster === wanted.cluster));
    }
    for (const field of document.querySelectorAll("[data-selection]")) field.value = selection();
    draw();
    list();
  };
  const selection = () => (shown.length === points.length ? "" : JSON.stringify(shown.filter((place) => !points[place][SET]).map((place) => points[place][ID])));

  // ---- drawing
  const size = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });
  const place = (point) => {
    const { width, height } = size();
    const unit = Math.min(width, height) * 0.46 * view.scale;
    return [width / 2 + (point[X] - view.x) * unit, height / 2 - (point[Y] - view.y) * unit];
  };
  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  };
  const paint = () => {
    const { width, height } = size();
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const radius = Math.max(1.6, Math.min(6, (points.length > 3000 ? 2 : 3) * Math.sqrt(view.scale)));
    const chosen = new Set(shown);
    const all = chosen.size === points.length;
    if (!all) {
      pen.fillStyle = page("--grid");
      points.forEach((point, number) => { if (!chosen.has(number)) dot(point, radius * 0.8); });
    }
    for (const number of shown) {
      const point = points[number];
      pen.globalAlpha = 0.78;
      if (point[SET]) {
        pen.strokeStyle = colour(point[CLUSTER]);
        pen.lineWidth = 1;
        ring(point, radius);
      } else {
        pen.fillStyle = colour(point[CLUSTER]);
        dot(point, radius);
      }
    }
    pen.globalAlpha = 1;
    labels(chosen);
    if (lasso && lasso.length > 1) outline();
  };
  const dot = (point, radius) => {
    const [x, y] = place(point);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.fill();
  };
  const ring = (point, radius) => {
    const [x, y] = place(point);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.stroke();
  };
  const outline = () => {
    pen.beginPath();
    lasso.forEach(([x, y], step) => (step ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.strokeStyle = page("--focus");
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.globalAlpha = 0.1;
    pen.fillStyle = page("--focus");
    pen.fill();
    pen.globalAlpha = 1;
  };
  const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  const centres = data.clusters.map((cluster) => {
    const members = points.filter((point) => point[CLUSTER] === cluster.cluster);
    return members.length ? [middle(members.map((point) => point[X])), middle(members.map((point) => point[Y]))] : [0, 0];
  });
  const labels = (chosen) => {
    const { width, height } = size();
    const present = new Set([...chosen].map((number) => points[number][CLUSTER]));
    const taken = [];
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineJoin = "round";
    for (const cluster of data.clusters) {
      if (!present.has(cluster.cluster)) continue;
      const [x, y] = place(centres[cluster.cluster]);
      const words = cluster.terms.slice(0, view.scale > 2 ? 3 : 2).join(", ") || `cluster ${cluster.cluster}`;
      const half = pen.measureText(words).width / 2 + 6;
      const box = [x - half, y - 9, x + half, y + 9];
      if (box[0] < 0 || box[2] > width || box[1] < 44 || box[3] > height) continue;
      if (taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      taken.push(box);
      pen.strokeStyle = page("--surface");
      pen.lineWidth = 4;
      pen.strokeText(words, x, y + 4);
      pen.fillStyle = page("--ink");
      pen.fillText(words, x, y + 4);
    }
  };

  // ---- the table says what the map says
  const cell = (row, text, kind) => {
    const made = row.insertCell();
    made.textContent = text;
    if (kind) made.className = kind;
  };
  const list = () => {
    const body = find("sample-table").tBodies[0];
    body.replaceChildren();
    for (const number of shown.slice(0, listed)) {
      const point = points[number];
      const row = body.insertRow();
      const text = document.createElement("div");
      text.textContent = point[TEXT];
      const first = row.insertCell();
      first.className = "text";
      first.append(text);
      cell(row, `${point[CLUSTER]} · ${data.clusters[point[CLUSTER]].name}`);
      cell(row, data.languages[point[LANGUAGE]]);
      cell(row, data.models[point[MODEL]]);
      cell(row, String(point[TURNS]), "number");
    }
    find("sample-more").hidden = shown.length <= listed;
  };
  find("sample-more").addEventListener("click", () => { listed += 50; list(); });

  // ---- moving
  const zoom = (factor, at) => {
    const { width, height } = size();
    const [px, py] = at || [width / 2, height / 2];
    const before = Math.min(width, height) * 0.46 * view.scale;
    const scale = Math.max(0.6, Math.min(60, view.scale * factor));
    const after = Math.min(width, height) * 0.46 * scale;
    view = {
      scale,
      x: view.x + (px - width / 2) * (1 / before - 1 / after),
      y: view.y - (py - height / 2) * (1 / before - 1 / after),
    };
    draw();
  };
  const move = (dx, dy) => {
    const { width, height } = size();
    const unit = Math.min(width, height) * 0.46 * view.scale;
    view = { ...view, x: view.x - dx / unit, y: view.y + dy / unit };
    draw();
  };
  const all = () => { view = { scale: 1, x: 0, y: 0 }; draw(); };
  find("atlas-in").addEventListener("click", () => zoom(1.5));
  find("atlas-out").addEventListener("click", () => zoom(1 / 1.5));
  find("atlas-all").addEventListener("click", all);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), [event.offsetX, event.offsetY]);
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2, [event.offsetX, event.offsetY]));
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
      "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": all,
    };
    if (keys[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); keys[event.key](); }
  });

  // ---- lasso, drag, point
  const toggle = find("atlas-lasso");
  const lassoing = () => toggle.getAttribute("aria-pressed") === "true";
  toggle.addEventListener("click", () => {
    toggle.setAttribute("aria-pressed", String(!lassoing()));
    frame.classList.toggle("lasso", lassoing());
    if (!lassoing() && inside) { inside = null; lasso = null; select(); }
  });
  const contains = (line, x, y) => {
    let odd = false;
    for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
      const [ax, ay] = line[i];
      const [bx, by] = line[j];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  };
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag = [event.offsetX, event.offsetY];
    if (lassoing()) lasso = [drag];
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = [event.offsetX, event.offsetY];
    if (!drag) return hover(here);
    if (lassoing()) { lasso.push(here); draw(); }
    else move(here[0] - drag[0], here[1] - drag[1]);
    drag = here;
    return undefined;
  });
  const release = () => {
    if (drag && lassoing() && lasso && lasso.length > 5) {
      inside = new Set(points.flatMap((point, number) => (contains(lasso, ...place(point)) ? [number] : [])));
      lasso = null;
      select();
    }
    drag = null;
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  const hover = ([x, y]) => {
    let best = null;
    let least = 100;
    for (const number of shown) {
      const [px, py] = place(points[number]);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) { least = distance; best = number; }
    }
    tip.hidden = best === null;
    if (best === null) return;
    const text = points[best][TEXT];
    tip.textContent = text.length > 180 ? `${text.slice(0, 180)}…` : text;
    const { width } = size();
    tip.style.left = `${Math.max(8, Math.min(x + 14, width - 310))}px`;
    tip.style.top = `${y + 16}px`;
  };

  // ---- filters
  const fill = (name, words) => {
    const field = form.elements[name];
    words.forEach((word, number) => field.add(new Option(word, String(number))));
    field.disabled = words.length < 2;
  };
  fill("language", data.languages);
  fill("model", data.models);
  for (const cluster of data.clusters) {
    form.elements.cluster.add(new Option(`${cluster.cluster} · ${cluster.name} (${cluster.size})`, String(cluster.cluster)));
  }
  form.querySelector(".of-sets").hidden = !points.some((point) => point[SET]);
  form.querySelector(".of-toxic").hidden = !points.some((point) => point[TOXIC] !== null);
  form.addEventListener("input", select);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    inside = null;
    toggle.setAttribute("aria-pressed", "false");
    frame.classList.remove("lasso");
    setTimeout(select);
  });
  for (const button of document.querySelectorAll("#cluster-table .pick")) {
    button.addEventListener("click", () => {
      const number = button.closest("tr").dataset.cluster;
      form.elements.cluster.value = form.elements.cluster.value === number ? "" : number;
      select();
      find("atlas").scrollIntoView({ block: "start" });
    });
  }
  find("atlas-save").addEventListener("click", () => {
    const lines = shown.map((number) => JSON.stringify({ id: points[number][ID], cluster: points[number][CLUSTER], prompt: points[number][TEXT] }));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "application/jsonl" }));
    link.download = "selection.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  const dots = () => {
    for (const mark of document.querySelectorAll(".dot[data-cluster]")) mark.style.background = colour(Number(mark.dataset.cluster));
  };
  dark.addEventListener("change", () => { dots(); draw(); });
  new ResizeObserver(draw).observe(canvas);
  dots();
  select();
})();
