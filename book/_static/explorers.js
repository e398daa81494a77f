/* The explorers: figures that follow the reader's hand. Their numbers lie in the page, as JSON, put there by the
   notebook (dfaccel.chapter.explorer); nothing is computed here but what is drawn. Needs d3 and Observable Plot. */
(() => {
  const node = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const percent = (x, digits = 0) => `${(100 * x).toFixed(digits)} %`;
  const short = d3.format(".3~g");
  const whole = d3.format(",.0f");

  let sliders = 0;

  /** A native slider with its label and its value in words. */
  function slider(label, last, value, words) {
    const id = `explorer-${(sliders += 1)}`;
    const input = node("input", { type: "range", id, min: 0, max: last, step: 1, value });
    const output = node("output", { for: id });
    const control = {
      element: node("div", {}, node("label", { for: id }, label), ": ", output, input),
      get value() {
        return +input.value;
      },
      set value(place) {
        input.value = place;
        control.tell();
      },
      tell() {
        output.value = words(+input.value);
        input.setAttribute("aria-valuetext", output.value);
      },
    };
    input.disabled = last === 0;
    input.addEventListener("input", control.tell);
    control.tell();
    return control;
  }

  /** A slider and a number field for the same quantity; the slider is logarithmic where `log` says so. */
  function field(label, { min, max, value, step, log }) {
    const [to, from] = log ? [Math.log10, (u) => +(10 ** u).toPrecision(2)] : [Number, Number];
    const range = node("input", { type: "range", min: to(min), max: to(max), step: log ? 0.02 : step, value: to(value) });
    const number = node("input", { type: "number", min: 0, step: "any", value, "aria-label": `${label}, as a number` });
    range.setAttribute("aria-valuetext", whole(value));
    range.addEventListener("input", () => {
      number.value = from(+range.value);
      range.setAttribute("aria-valuetext", short(+number.value));
    });
    number.addEventListener("input", () => (range.value = to(+number.value)));
    return {
      element: node("div", {}, node("label", {}, label, range), number),
      get value() {
        return +number.value;
      },
    };
  }

  /** Where a value lies between the nodes of a grid: [node below, share of the one above], or null outside. */
  function between(grid, value) {
    if (!(value >= grid[0] && value <= grid.at(-1))) return null;
    const i = Math.min(d3.bisectRight(grid, value) - 1, Math.max(grid.length - 2, 0));
    return [i, grid.length > 1 ? (value - grid[i]) / (grid[i + 1] - grid[i]) : 0];
  }

  /** Multilinear interpolation of a nested array; null outside the grid and beside cells that are not there. */
  function interpolate(values, places) {
    if (places.length === 0) return values;
    if (places[0] === null) return null;
    const [[i, share], ...rest] = places;
    if (share === 0) return interpolate(values[i], rest);
    const [low, high] = [interpolate(values[i], rest), interpolate(values[i + 1], rest)];
    return low === null || high === null ? null : low + share * (high - low);
  }

  /** What the colours mean. */
  const key = (names, colour) =>
    node("ul", { class: "key" }, ...names.map((name, k) => {
      const mark = node("span");
      mark.style.background = colour[k];
      return node("li", {}, mark, name);
    }));

  const frame = { marginBottom: 42, style: { background: "none", color: "inherit", fontSize: "13px", overflow: "visible" } };
  const draw = (place, options) => {
    const width = Math.max(240, Math.min(place.clientWidth || 320, options.width ?? 640));
    const figure = Plot.plot({ ...frame, ...options, width, height: options.square ? width : options.height });
    for (const part of figure.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label"); // the whole has one
    figure.setAttribute("role", "img");
    place.replaceChildren(figure);
    return figure;
  };

  const explorers = {
    /** Chapter 5: a point in a plane through the galaxy, the velocities there, and the acceleration. */
    galaxy(data, colour, parts) {
      const { radii, angles, speeds } = data;
      const r = slider("Distance from the centre", radii.length - 1, Math.floor(radii.length / 2), (i) => `${short(radii[i])} scale radii`);
      const phi = slider("Direction", angles.length - 1, 0, (j) => `${angles[j]}°`);
      const plane = node("div", {
        class: "plane",
        tabindex: 0,
        role: "application",
        "aria-roledescription": "point to drag",
        "aria-label": "Point in the galaxy. Up and down change its distance, left and right its direction.",
      });
      const [velocities, tip] = [node("div"), node("div")];
      parts.controls.append(r.element, phi.element);
      parts.figures.append(plane, velocities, tip);

      const depth = (radius) => Math.log(radius / radii[0]) + 0.7; // the plane is drawn in logarithm of radius
      const edge = depth(radii.at(-1)) + 0.4;
      const turn = (angle) => [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
      let figure;

      const move = (event) => {
        const box = figure.getBoundingClientRect();
        const scale = figure.viewBox.baseVal.width / box.width;
        const x = figure.scale("x").invert((event.clientX - box.left) * scale);
        const y = figure.scale("y").invert((event.clientY - box.top) * scale);
        const angle = ((Math.atan2(y, x) * 180) / Math.PI + 360) % 360;
        r.value = d3.leastIndex(radii, (radius) => Math.abs(depth(radius) - Math.hypot(x, y)));
        phi.value = d3.leastIndex(angles, (one) => Math.abs(((one - angle + 540) % 360) - 180));
        parts.update();
      };
      plane.addEventListener("pointerdown", (event) => {
        plane.setPointerCapture(event.pointerId);
        plane.focus();
        move(event);
      });
      plane.addEventListener("pointermove", (event) => plane.hasPointerCapture(event.pointerId) && move(event));
      plane.addEventListener("keydown", (event) => {
        const steps = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, 1], ArrowRight: [0, -1] }[event.key];
        if (!steps) return;
        event.preventDefault();
        r.value = r.value + steps[0];
        phi.value = (phi.value + steps[1] + angles.length) % angles.length;
        parts.update();
      });

      return () => {
        const [i, j] = [r.value, phi.value];
        const [cos, sin] = turn(angles[j]);
        const [outward, around] = data.error[i][j];
        const [vrr, vrp, vpp] = data.covariance[i][j];
        const [x, y] = [depth(radii[i]) * cos, depth(radii[i]) * sin];
        const arrow = (along, across) => ({ x1: x, y1: y, x2: x - along * cos - across * sin, y2: y - along * sin + across * cos });
        const circles = [0.3, 1, 3, 10].filter((radius) => radius > radii[0] && radius < radii.at(-1));
        figure = draw(plane, {
          ariaLabel: "The plane of the galaxy with the point and its acceleration, true and recovered",
          square: true,
          width: 340,
          margin: 8,
          marginBottom: 8,
          x: { domain: [-edge, edge], axis: null },
          y: { domain: [-edge, edge], axis: null },
          marks: [
            circles.map((radius) =>
              Plot.line(d3.range(0, 361, 5).map((a) => turn(a).map((u) => u * depth(radius))), { stroke: "currentColor", strokeOpacity: 0.35 }),
            ),
            Plot.text(circles, { x: 0, y: depth, text: short, dy: -7, fill: "currentColor" }),
            Plot.dot([[0, 0]], { symbol: "plus", stroke: "currentColor" }),
            Plot.arrow([arrow(1, 0)], { x1: "x1", y1: "y1", x2: "x2", y2: "y2", stroke: "currentColor", strokeWidth: 5, strokeOpacity: 0.35 }),
            Plot.arrow([arrow(1 - outward, around)], { x1: "x1", y1: "y1", x2: "x2", y2: "y2", stroke: colour[3], strokeWidth: 2 }),
            Plot.dot([[x, y]], { r: 9, fill: colour[0], stroke: "currentColor" }),
          ],
        });
        draw(velocities, {
          ariaLabel: "Distribution of the velocity along the radius at this point, true and learned",
          height: 260,
          width: 420,
          marginLeft: 45,
          x: { label: "velocity along the radius / escape speed" },
          y: { label: "stars, share per unit", domain: [0, d3.max(data.true, (row) => d3.max(row))] },
          marks: [
            Plot.line(d3.zip(speeds, data.true[i]), { stroke: "currentColor", strokeWidth: 5, strokeOpacity: 0.35 }),
            Plot.line(d3.zip(speeds, data.learned[i][j]), { stroke: colour[3], strokeWidth: 2 }),
            Plot.text([["true (broad), learned (thin)"]], { frameAnchor: "top", text: (d) => d[0], fill: "currentColor" }),
          ],
        });
        const limit = 100 * data.limit;
        const ellipse = d3.range(0, 361, 6).map((angle) => {
          const [c, s] = turn(angle); // the square root of the covariance, by Cholesky, times a circle
          const l = Math.sqrt(vrr);
          const m = l > 0 ? vrp / l : 0;
          return [100 * (outward + l * c), 100 * (around + m * c + Math.sqrt(Math.max(vpp - m * m, 0)) * s)];
        });
        draw(tip, {
          ariaLabel: "Error of the recovered acceleration and its error ellipse, relative to the true acceleration",
          height: 260,
          width: 320,
          marginLeft: 45,
          x: { label: "error along the radius [%]", domain: [-limit, limit] },
          y: { label: "error across [%]", domain: [-limit, limit] },
          marks: [
            Plot.ruleX([0], { strokeOpacity: 0.35 }),
            Plot.ruleY([0], { strokeOpacity: 0.35 }),
            Plot.line(ellipse, { stroke: colour[3], clip: true }),
            Plot.dot([[100 * outward, 100 * around]], { r: 4, fill: colour[3], clip: true }),
          ],
        });
        return (
          `At ${short(radii[i])} scale radii, ${angles[j]}°: true acceleration ${short(data.pull[i])}, recovered inward ` +
          `${short(data.pull[i] * (1 - outward))}; error in the plane ${percent(Math.hypot(outward, around), 2)}, ` +
          `scatter over members ${percent(Math.sqrt(vrr + vpp), 2)}.`
        );
      };
    },

    /** Chapter 7: number of stars, noise and members against the error, with the reader's own numbers. */
    errors(data, colour, parts) {
      const stars = field("Stars", { min: 3e3, max: 3e6, value: 1e5, log: true });
      const noise = field("Noise of positions and velocities [%]", { min: 0, max: 12, step: 0.1, value: 1 });
      const members = field("Members", { min: 1, max: 8, step: 1, value: 4 });
      const figure = node("div");
      parts.controls.append(stars.element, noise.element, members.element);
      parts.figures.append(figure);

      const grids = [data.n_stars.map(Math.log), data.noise, data.members.map(Math.log)];
      const logs = (values) => values.map((one) => (Array.isArray(one) ? logs(one) : one === null ? null : Math.log(one)));
      const tables = { median: logs(data.median), p90: logs(data.p90) };
      const error = (quantity, ...where) => {
        const point = [Math.log(where[0]), where[1], Math.log(where[2])];
        const value = interpolate(tables[quantity], grids.map((grid, k) => between(grid, point[k])));
        return value === null ? null : Math.exp(value);
      };

      return () => {
        const own = [stars.value, noise.value / 100, members.value];
        const [median, p90] = [error("median", ...own), error("p90", ...own)];
        const lines = data.noise.flatMap((level, k) =>
          data.n_stars.map((n) => ({ n, k, level, error: error("median", n, level, own[2]) })).filter((d) => d.error !== null),
        );
        draw(figure, {
          ariaLabel: "Median vector error against the number of stars, for each level of noise, with your own place",
          height: 340,
          marginLeft: 50,
          x: { type: "log", label: "stars", domain: [3e3, 3e6], tickFormat: "~s" },
          y: { type: "log", label: "vector error [%]", domain: data.range.map((x) => 100 * x), tickFormat: short },
          marks: [
            Plot.line(lines, { x: "n", y: (d) => 100 * d.error, z: "k", stroke: (d) => colour[d.k] }),
            Plot.dot(lines, { x: "n", y: (d) => 100 * d.error, r: 4, fill: (d) => colour[d.k] }),
            median === null
              ? Plot.ruleX([own[0]].filter((n) => n > 3e3 && n < 3e6), { stroke: "currentColor", strokeDasharray: "4 4" })
              : [
                  Plot.ruleX([own[0]], { y1: 100 * median, y2: 100 * p90, stroke: "currentColor", strokeWidth: 2 }),
                  Plot.dot([own], { x: "0", y: () => 100 * median, r: 8, symbol: "star", fill: "currentColor" }),
                ],
          ],
        });
        figure.append(key(data.noise.map((level) => `${percent(level)} noise`), colour));
        const what = `${whole(own[0])} stars, ${short(noise.value)} % noise, ${short(own[2])} members`;
        return median === null
          ? `${what}: outside what was measured, so no number.`
          : `${what}: median error ${percent(median, 2)}, one point in ten worse than ${percent(p90, 2)}.`;
      };
    },

    /** Chapter 12: a cell of the study against the shares of its variance. */
    shares(data, colour, parts) {
      const name = (cell) => `${cell.system}, stream fraction ${short(cell.fraction)}, ${whole(cell.n_stars)} stars`;
      const cell = node("select", {}, ...data.cells.map((one, k) => node("option", { value: k }, name(one))));
      const figure = node("div");
      parts.controls.append(node("label", {}, "Cell: ", cell));
      parts.figures.append(figure);

      return () => {
        const chosen = data.cells[cell.value];
        const here = data.cells.filter((one) => one.system === chosen.system);
        const bars = here.flatMap((cell) => data.terms.map((term, k) => ({ ...cell, term, share: 100 * cell.share[k] })));
        draw(figure, {
          ariaLabel: "Shares of the variance of the held-out loss, a bar for each stream fraction and number of stars",
          marginTop: 40,
          height: 110 + 34 * here.length,
          marginLeft: 60,
          marginRight: 45,
          x: { label: "share of the variance [%]", domain: [0, 100] },
          y: { label: "stream fraction", labelAnchor: "top", labelArrow: "none", tickFormat: short },
          fy: { label: "stars", labelAnchor: "top", labelArrow: "none", tickFormat: "~s" },
          color: { domain: data.terms, range: colour, legend: false },
          marks: [
            Plot.barX(bars, { y: "fraction", fy: "n_stars", x: "share", fill: "term", order: data.terms }),
            Plot.barX([chosen], { y: "fraction", fy: "n_stars", x1: 0, x2: 100, fill: "none", stroke: "currentColor", strokeWidth: 3 }),
          ],
        });
        figure.append(key(data.terms, colour));
        const each = data.terms.map((term, k) => {
          const [low, high] = chosen.interval[k];
          return `${term} ${percent(chosen.share[k])} (${percent(low)} to ${percent(high)})`;
        });
        return `${name(chosen)}: ${each.join(", ")}.`;
      };
    },
  };

  for (const box of document.querySelectorAll(".explorer[data-name]")) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const parts = {
      controls: node("div", { class: "controls" }),
      figures: node("div", { class: "figures" }),
      says: node("p", { class: "says", role: "status" }),
    };
    box.append(parts.controls, parts.figures, parts.says);
    box.hidden = false;
    const show = explorers[box.dataset.name](data, box.dataset.colours.split(" "), parts);
    parts.update = () => (parts.says.textContent = show());
    parts.controls.addEventListener("input", parts.update);
    window.addEventListener("resize", parts.update);
    parts.update();
  }
})();
