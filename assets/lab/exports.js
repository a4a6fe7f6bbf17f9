/* What leaves the laboratory as a file: numbers as JSON or CSV, plots as SVG or PNG; and JSON that comes
   back. */
(() => {
  const STYLED = ["stroke", "stroke-width", "stroke-dasharray", "fill", "fill-opacity", "opacity", "font-size", "font-family", "font-weight"];
  const PNG_SCALE = 2;

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

  /** Several plots below each other as one picture that needs no style sheet. */
  function standalone(pictures, title) {
    const { svg } = window.plots;
    const boxes = pictures.map((picture) => picture.viewBox.baseVal);
    const width = Math.max(...boxes.map((box) => box.width));
    const background = getComputedStyle(document.querySelector("#lab .card")).backgroundColor;
    let top = 24;
    const parts = pictures.map((picture, i) => {
      const copy = picture.cloneNode(true);
      const originals = [picture, ...picture.querySelectorAll("*")];
      [copy, ...copy.querySelectorAll("*")].forEach((element, at) => {
        const style = getComputedStyle(originals[at]);
        for (const name of STYLED) element.setAttribute(name, style.getPropertyValue(name));
        element.removeAttribute("class");
      });
      for (const [name, value] of [["x", 0], ["y", top], ["width", boxes[i].width], ["height", boxes[i].height]]) {
        copy.setAttribute(name, value);
      }
      top += boxes[i].height + 10;
      return copy;
    });
    const ink = getComputedStyle(document.querySelector("#lab .card")).color;
    const whole = svg("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${width} ${top}`, width, height: top }, [
      svg("rect", { width, height: top, fill: background }),
      svg("text", { x: 8, y: 16, fill: ink, "font-size": 12, "font-family": "sans-serif" }, [title]), ...parts,
    ]);
    return { text: new XMLSerializer().serializeToString(whole), width, height: top };
  }

  const saveSvg = (name, pictures, title) =>
    save(`${name}.svg`, `<?xml version="1.0" encoding="UTF-8"?>\n${standalone(pictures, title).text}\n`, "image/svg+xml");

  async function savePng(name, pictures, title) {
    const { text, width, height } = standalone(pictures, title);
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: width * PNG_SCALE, height: height * PNG_SCALE });
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((data) => save(`${name}.png`, data), "image/png");
  }

  /** A button that opens a JSON file of this kind of result. */
  function opener(label, kind, opened) {
    const input = window.markdown.make("input", { type: "file", accept: ".json,application/json", class: "unseen lab-opener", tabindex: "-1", "aria-label": label });
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
