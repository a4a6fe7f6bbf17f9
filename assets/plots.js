/* Plots as SVG: axes, lines and figures for people. The side panel's chart and the laboratory's plots
   are drawn with it; what is in them, and how it looks, say those who call it and style.css. */
window.plots = (() => {
  // ---- figures for people -------------------------------------------------------------------------

  function bytes(count) {
    for (const [unit, size] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
      if (count >= size) return `${Number((count / size).toPrecision(3))} ${unit}`;
    }
    return `${Math.round(count)} B`;
  }
  const whole = (count) => Math.round(count).toLocaleString("en");
  const short = (count) => (count >= 1e6 ? `${count / 1e6} M` : count >= 1e3 ? `${count / 1e3} k` : `${count}`);

  // ---- parts ----------------------------------------------------------------------------------------

  const svg = (name, attributes, children = []) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const line = (css, x1, y1, x2, y2) => svg("line", { class: css, x1, y1, x2, y2 });
  const text = (css, x, y, words, anchor = "middle") => svg("text", { class: css, x, y, "text-anchor": anchor }, [words]);
  /** One line through points that are pairs of places; as fast with thousands of them. */
  const path = (css, points) => svg("path", {
    class: css, fill: "none", d: points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""),
  });

  // ---- axes -----------------------------------------------------------------------------------------

  const floorTen = (value) => 10 ** Math.floor(Math.log10(value));
  const ceilTen = (value) => 10 ** Math.ceil(Math.log10(value));

  /** From `from` to `to` in powers of ten: where a value stands, 0 to 1, and the powers. */
  function powers(from, to) {
    const ticks = [];
    for (let tick = ceilTen(from); tick <= to * 1.000001; tick *= 10) ticks.push(tick);
    return { share: (value) => Math.log(Math.max(value, from) / from) / Math.log(to / from), ticks };
  }

  /** From 0 to a round number above `most`, in even steps. */
  function steps(most) {
    const unit = floorTen(Math.max(most, 1e-9));
    const step = [0.2, 0.5, 1, 2].map((part) => part * unit).find((size) => most / size <= 5) ?? 2 * unit;
    const num = Math.max(1, Math.ceil(most / step - 1e-9));
    const ticks = Array.from({ length: num + 1 }, (_, i) => Number((i * step).toPrecision(6)));
    return { share: (value) => Math.max(0, value) / (num * step), ticks };
  }

  /** Places in a box of the two axes `across` and `up`, and their grid and names. */
  function axes({ width, height, left, right, top, bottom }, across, up) {
    const x = (value) => left + (width - left - right) * Math.min(1, across.share(value));
    const y = (value) => top + (height - top - bottom) * (1 - up.share(value));
    const drawn = [];
    up.ticks.forEach((tick, i) => {
      drawn.push(line("grid", left, y(tick), width - right, y(tick)));
      const isNamed = up.ticks.length <= 5 || i % 2 === 0;
      if (isNamed) drawn.push(text("", left - 6, y(tick) + 3.5, up.name(tick), "end"));
    });
    across.ticks.forEach((tick, i) => {
      const anchor = i === across.ticks.length - 1 ? "end" : i === 0 ? "start" : "middle";
      drawn.push(text("", x(tick), height - 6, across.name(tick), anchor));
    });
    return { x, y, drawn };
  }

  const picture = ({ width, height }, label, drawn) =>
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, drawn);

  return { bytes, whole, short, svg, line, text, path, floorTen, ceilTen, powers, steps, axes, picture };
})();
