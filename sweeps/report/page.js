"use strict";
// Draws the plots and sorts the table; nothing is fetched.
(() => {
  const nonce = document.currentScript.nonce;

  // --- the plots: plotly.js is in the page, compressed ---------------------------------------------------
  async function load() {
    const text = document.getElementById("plotly").textContent;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function theme(layout) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const themed = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: style.fontFamily, size: 12, color: colour("--quiet") },
      hoverlabel: {
        align: "left", bgcolor: colour("--card"), bordercolor: colour("--line"),
        font: { family: style.fontFamily, size: 12, color: colour("--ink") },
      },
    };
    for (const axis of ["xaxis", "yaxis"]) {
      if (layout[axis]) themed[axis] = { ...layout[axis], gridcolor: colour("--line"), linecolor: colour("--line") };
    }
    if (matchMedia("(pointer: coarse)").matches) themed.dragmode = false; // a finger scrolls the page
    return { ...layout, ...themed };
  }

  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true };

  // The colours of better and worse depend on the background.
  function coloured(traces, colours) {
    const scale = colours.map((colour, place) => [place / (colours.length - 1), colour]);
    return traces.map((trace) => (trace.colorscale ? { ...trace, colorscale: scale } : trace));
  }

  async function draw() {
    const places = [...document.querySelectorAll("[data-plot]")];
    if (!places.length) return;
    const { texts, charts, scales } = JSON.parse(document.getElementById("figures").textContent);
    for (const figure of Object.values(charts).flat()) { // each text is there once
      if (figure.names) figure.names = figure.names.map((index) => texts[index]);
      for (const trace of figure.data ?? []) trace.hovertext &&= trace.hovertext.map((index) => texts[index]);
    }
    const show = (place) => {
      const figure = charts[place.dataset.plot][Number(place.dataset.panel)];
      const colours = scales[isDark.matches ? "dark" : "light"];
      if (figure.lines) return drawParallel(place, figure, colours);
      return Plotly.react(place, coloured(figure.data, colours), theme(figure.layout), config);
    };
    for (const place of places) {
      await show(place);
      await new Promise((done) => setTimeout(done)); // let what is drawn be seen
    }
    isDark.addEventListener("change", () => places.forEach(show));
    let timer;
    addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(() => places.filter((place) => place.classList.contains("wide")).forEach(show), 150);
    });
  }

  // --- parallel coordinates, by SVG: plotly's need WebGL -------------------------------------------------------
  function element(parent, name, attributes, text) {
    const found = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    if (text !== undefined) found.textContent = text;
    parent.append(found);
    return found;
  }

  function mixed(colours, at) {
    const place = Math.min(Math.max(at, 0), 1) * (colours.length - 1);
    const index = Math.min(Math.floor(place), colours.length - 2);
    const [low, high] = [index, index + 1].map((i) => colours[i].match(/[0-9a-f]{2}/g).map((two) => parseInt(two, 16)));
    return `rgb(${low.map((part, i) => Math.round(part + (high[i] - part) * (place - index)))})`;
  }

  function drawParallel(place, figure, colours) {
    place.classList.add("wide");
    place.replaceChildren();
    const count = figure.axes.length;
    const width = Math.max(place.clientWidth, 96 * count);
    const [left, right, top, bottom] = [64, 40, 40, 16];
    const floor = figure.lines.some((line) => line.some((height) => height < 0)) ? figure.missing : 0;
    const x = (index) => left + (count > 1 ? ((width - left - right) * index) / (count - 1) : 0);
    const y = (height) => top + ((figure.height - top - bottom) * (1 - height)) / (1 - floor);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", width);
    svg.setAttribute("height", figure.height);
    svg.setAttribute("class", "parallel");
    place.append(svg);
    const group = element(svg, "g", { class: "lines" });
    const paths = figure.lines.map((line, index) => {
      const points = line.map((height, axis) => `${x(axis).toFixed(1)} ${y(height).toFixed(1)}`);
      const path = element(group, "path", { d: `M${points.join("L")}`, stroke: mixed(colours, figure.goal[index]) });
      element(path, "title", {}, figure.names[index]);
      return path;
    });
    const brushes = new Map();
    const update = () => paths.forEach((path, index) => {
      const isKept = [...brushes].every(([axis, [low, high]]) => {
        const height = figure.lines[index][axis];
        return low <= height && height <= high;
      });
      path.classList.toggle("off", !isKept);
    });
    figure.axes.forEach((axis, index) => {
      const own = element(svg, "g", { class: "axis" });
      element(own, "line", { x1: x(index), x2: x(index), y1: y(1), y2: y(floor) });
      const anchor = index === 0 ? "start" : index === count - 1 ? "end" : "middle";
      const at = index === 0 ? 4 : index === count - 1 ? width - 4 : x(index);
      const longest = Math.floor(((width - left - right) / Math.max(count - 1, 1)) / 6.6);
      const label = axis.label.length > longest ? `…${axis.label.slice(1 - longest)}` : axis.label;
      const name = element(own, "text", { x: at, y: 18, "text-anchor": anchor, class: "name" }, label);
      element(name, "title", {}, axis.label);
      for (const [height, text] of axis.ticks) {
        const short = text.length > 12 ? `${text.slice(0, 11)}…` : text;
        element(own, "text", { x: x(index) - 7, y: y(height) + 4, "text-anchor": "end" }, short);
      }
      const brush = element(own, "rect", { x: x(index) - 7, width: 14, y: 0, height: 0, class: "brush" });
      const area = element(own, "rect", {
        x: x(index) - 16, width: 32, y: y(1) - 8, height: y(floor) - y(1) + 16, class: "area",
      });
      const heightAt = (event) => {
        const from = event.clientY - svg.getBoundingClientRect().top;
        return 1 - ((from - top) * (1 - floor)) / (figure.height - top - bottom);
      };
      let start = null;
      area.addEventListener("pointerdown", (event) => {
        start = heightAt(event);
        area.setPointerCapture(event.pointerId);
      });
      area.addEventListener("pointermove", (event) => {
        if (start === null) return;
        const [low, high] = [start, heightAt(event)].sort((a, b) => a - b);
        brushes.set(index, [low, high]);
        brush.setAttribute("y", y(high));
        brush.setAttribute("height", y(low) - y(high));
        update();
      });
      area.addEventListener("pointerup", (event) => {
        if (start !== null && Math.abs(heightAt(event) - start) < 0.01) {
          brushes.delete(index);
          brush.setAttribute("height", 0);
          update();
        }
        start = null;
      });
    });
  }

  if (document.getElementById("plotly")) {
    load().then(draw).catch((error) => {
      for (const place of document.querySelectorAll("[data-plot]")) {
        place.textContent = "This browser cannot draw the plots: " + error.message;
        place.classList.add("broken");
      }
      console.error(error);
    }).finally(() => document.documentElement.dataset.drawn = "true");
  } else {
    document.documentElement.dataset.drawn = "true";
  }

  // --- the table: a click on a name sorts, another turns the order round -----------------------------------
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const isRising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isRising ? "ascending" : "descending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const number = cell.dataset.v === undefined ? NaN : Number(cell.dataset.v);
        return { row, number, text: cell.textContent };
      });
      keyed.sort((a, b) => {
        if (!a.text !== !b.text) return a.text ? -1 : 1; // what is empty comes last, either way
        const isNumber = [!Number.isNaN(a.number), !Number.isNaN(b.number)];
        if (isNumber[0] !== isNumber[1]) return isNumber[0] ? -1 : 1;
        const order = isNumber[0] ? a.number - b.number : a.text.localeCompare(b.text);
        return isRising ? order : -order;
      });
      body.append(...keyed.map((entry) => entry.row));
    }));
  }
})();
