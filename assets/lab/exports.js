/* What leaves the laboratory as a file: numbers as JSON or CSV, plots as SVG or PNG; and JSON that comes
   back. */
(() => {
  const STYLED = ["stroke", "stroke-width", "stroke-dasharray", "fill", "fill-opacity", "opacity", "font-size", "font-family", "font-weight"];
  const PNG_SCALE = 2;
  const MIN_WIDTH = 520; // for the words below a small map

  function save(name, data, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  const saveJson = (name, value) => save(`${name}.json`, `${JSON.stringify(value, null, 1)}\n`, "application/json");

  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const saveCsv = (name, columns, rows) =>
    save(`${name}.csv`, [columns, ...rows].map((row) => `${row.map(cell).join(",")}\n`).join(""), "text/csv");

  /** The plots of a figure below each other as one picture that needs no style sheet: with their names
      above them, the keys of the legend, and sentences below. */
  function standalone(figure, title, sentences) {
    const { svg } = window.plots;
    const look = getComputedStyle(figure);
    const words = (x, y, text, size = 12) =>
      svg("text", { x, y, fill: look.color, "font-size": size, "font-family": "sans-serif" }, [text]);
    const drawn = [words(8, 18, title, 13)];
    let [width, top] = [0, 26];
    for (const picture of figure.querySelectorAll(".plots svg")) {
      const box = picture.viewBox.baseVal;
      const name = nameOf(picture);
      if (name) drawn.push(words(8, (top += 18), name));
      drawn.push(styled(picture, top += 4));
      [width, top] = [Math.max(width, box.width), top + box.height];
    }
    for (const key of figure.querySelectorAll(".key")) {
      top += 18;
      drawn.push(svg("rect", { x: 8, y: top - 6, width: 14, height: 3, fill: getComputedStyle(key, "::before").backgroundColor }));
      drawn.push(words(28, top, key.textContent));
    }
    for (const sentence of sentences) drawn.push(words(8, top += 18, sentence));
    const height = top + 12;
    width = Math.max(width, MIN_WIDTH);
    const background = svg("rect", { width, height, fill: look.backgroundColor });
    const whole = svg("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${width} ${height}`, width, height }, [background, ...drawn]);
    return { text: new XMLSerializer().serializeToString(whole), width, height };
  }

  /** The heading before a plot, if it has one of its own. */
  function nameOf(picture) {
    let before = picture.previousElementSibling;
    while (before && !before.matches("h3, svg")) before = before.previousElementSibling;
    return before?.matches("h3") ? before.textContent : "";
  }

  /** A copy at this height that has its looks in itself. */
  function styled(picture, top) {
    const copy = picture.cloneNode(true);
    const originals = [picture, ...picture.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
      const style = getComputedStyle(originals[i]);
      for (const name of STYLED) element.setAttribute(name, style.getPropertyValue(name));
      element.removeAttribute("class");
    });
    const { width, height } = picture.viewBox.baseVal;
    for (const [name, value] of Object.entries({ x: 0, y: top, width, height })) copy.setAttribute(name, value);
    return copy;
  }

  const saveSvg = (name, ...what) =>
    save(`${name}.svg`, `<?xml version="1.0" encoding="UTF-8"?>\n${standalone(...what).text}\n`, "image/svg+xml");

  async function savePng(name, ...what) {
    const { text, width, height } = standalone(...what);
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: width * PNG_SCALE, height: height * PNG_SCALE });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((data) => save(`${name}.png`, data), "image/png");
  }

  /** A button that opens a JSON file of this kind of result. */
  function opener(label, kind, opened) {
    const input = window.markdown.make("input", { type: "file", accept: ".json,application/json", class: "lab-opener", hidden: "" });
    const button = window.lab.button(label, () => input.click());
    input.addEventListener("change", async () => {
      const [file] = input.files;
      input.value = "";
      if (!file) return;
      try {
        const value = JSON.parse(await file.text());
        if (value?.kind !== kind) throw new Error("another kind of file");
        opened(value);
      } catch {
        window.page.note(`${file.name} holds no result of this experiment.`);
      }
    });
    return [button, input];
  }

  Object.assign(window.lab, { saveJson, saveCsv, saveSvg, savePng, opener });
})();
