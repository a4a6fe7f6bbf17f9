/* The picture of a state (engine/states/sketch.py): one cell a group of channels, drawn in the colours
   of the theme. The same state always makes the same picture. */
window.strip = (() => {
  const SIGN_SHARE = 0.55; // of a cell's tone that the signed sum decides; the amount has the rest

  /** The rows, the columns and the bytes of a picture, or null. */
  function parse(picture) {
    const found = /^(\d{1,3})x(\d{1,3}):(.+)$/.exec(picture ?? "");
    if (!found) return null;
    const [rows, columns] = [Number(found[1]), Number(found[2])];
    try {
      const cells = Uint8Array.from(atob(found[3]), (c) => c.charCodeAt(0));
      return cells.length === rows * columns ? { rows, columns, cells } : null;
    } catch {
      return null;
    }
  }

  const toneOf = (cell) =>
    (1 - SIGN_SHARE) * ((cell >> 4) / 15) + SIGN_SHARE * ((cell & 15) / 15);

  /** Tones of fewer cells: each is the mean of those that it stands for. */
  function tones({ rows, columns, cells }, maxRows, maxColumns) {
    const [tall, wide] = [Math.ceil(rows / maxRows), Math.ceil(columns / maxColumns)];
    const [numRows, numColumns] = [Math.ceil(rows / tall), Math.ceil(columns / wide)];
    const sums = new Float32Array(numRows * numColumns);
    const counts = new Uint16Array(numRows * numColumns);
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const at = Math.floor(row / tall) * numColumns + Math.floor(column / wide);
        sums[at] += toneOf(cells[row * columns + column]);
        counts[at] += 1;
      }
    }
    return { rows: numRows, columns: numColumns, tones: sums.map((sum, i) => sum / counts[i]) };
  }

  function colours() {
    const style = getComputedStyle(document.body);
    const read = (name) => {
      const hex = style.getPropertyValue(name).trim().slice(1);
      return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
    };
    return { low: read("--strip-low"), high: read("--strip-high"), moved: read("--strip-moved") };
  }

  /** Draws tones of 0…1 into a canvas whose pixels are the cells. `moved` cells are marked. */
  function paint(canvas, { rows, columns, tones: values }, moved = null) {
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const { low, high, moved: mark } = colours();
    values.forEach((value, i) => {
      // Means of many cells lie close together: stretched, a stamp has as much contrast as a strip.
      const share = Math.min(1, Math.max(0, (value - 0.15) / 0.7));
      const flash = moved ? moved[i] : 0;
      for (let channel = 0; channel < 3; channel += 1) {
        const base = low[channel] + (high[channel] - low[channel]) * share;
        image.data[4 * i + channel] = base + (mark[channel] - base) * flash;
      }
      image.data[4 * i + 3] = 255;
    });
    context.putImageData(image, 0, 0);
  }

  /** Draws a picture; `before` marks the cells that moved most since that one. Whether it could. */
  function draw(canvas, picture, { maxRows = 32, maxColumns = 64, before = null } = {}) {
    const parsed = parse(picture);
    if (!parsed) return false;
    const now = tones(parsed, maxRows, maxColumns);
    const earlier = before && parse(before);
    const then = earlier ? tones(earlier, maxRows, maxColumns) : null;
    const isAlike = then && then.tones.length === now.tones.length;
    paint(canvas, now, isAlike ? now.tones.map((tone, i) =>
      Math.min(0.9, Math.max(0, Math.abs(tone - then.tones[i]) - 0.12) * 3)) : null);
    return true;
  }

  /** Draws how far each cell is from what it was before; the share of cells that moved. */
  function drawChange(canvas, picture, before) {
    const [now, then] = [parse(picture), parse(before)];
    if (!now || !then || now.cells.length !== then.cells.length) return null;
    const moves = Array.from(now.cells, (cell, i) =>
      Math.abs(toneOf(cell) - toneOf(then.cells[i])));
    paint(canvas, { rows: now.rows, columns: now.columns, tones: moves.map((m) => 0.15 + 1.6 * m) });
    return moves.filter((move) => move > 0.08).length / moves.length;
  }

  /** Draws every canvas again, as after a change of the theme. */
  function drawAgain() {
    for (const canvas of document.querySelectorAll("canvas[data-strip]")) {
      draw(canvas, canvas.dataset.strip, JSON.parse(canvas.dataset.size || "{}"));
    }
  }

  /** A canvas that keeps its picture. */
  function make(picture, size = {}, before = null) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    set(canvas, picture, size, before);
    return canvas;
  }

  function set(canvas, picture, size = {}, before = null) {
    canvas.dataset.strip = picture ?? "";
    canvas.dataset.size = JSON.stringify(size);
    if (!draw(canvas, picture, { ...size, before })) canvas.width = canvas.height = 1;
  }

  return { draw, drawChange, drawAgain, make, set };
})();
