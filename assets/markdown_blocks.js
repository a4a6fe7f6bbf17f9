/* Markdown's blocks, as nodes: paragraphs, headings, lists, quotes, tables, code, formulas.

   A list of lines becomes a list of [first line, node]. Nothing that was written stays unseen: a code
   block shows its label, a table all cells, a list the numbers it was given; there are no references,
   footnotes or HTML that could take words away. */
(() => {
  const MAX_DEPTH = 12; // of lists and quotes in each other; deeper is text
  const MAX_FORMULA_LINES = 40;
  const { make, formula, inlineOf } = window.markdown;

  const isBlank = (line) => line.trim() === "";

  /** The column of the first character that is no space; tabs reach to the next fourth column. */
  function indentOf(line) {
    let column = 0;
    for (const c of line) {
      if (c === " ") column += 1;
      else if (c === "\t") column += 4 - (column % 4);
      else break;
    }
    return column;
  }

  /** The line without the spaces before `column`. */
  function dedent(line, column) {
    let [at, reached] = [0, 0];
    while (reached < column && (line[at] === " " || line[at] === "\t")) {
      reached += line[at] === " " ? 1 : 4 - (reached % 4);
      at += 1;
    }
    return " ".repeat(Math.max(0, reached - column)) + line.slice(at);
  }

  const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)$/s;
  const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
  const QUOTE = /^ {0,3}>/;
  const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?=[ \t]|$)/;

  function fenceOf(line) {
    const found = FENCE.exec(line);
    return found && !(found[1][0] === "`" && found[2].includes("`")) ? found : null;
  }

  function isRule(line) {
    if (indentOf(line) > 3) return false;
    const marks = line.replace(/[ \t]/g, "");
    return marks.length >= 3 && "-*_".includes(marks[0]) && marks === marks[0].repeat(marks.length);
  }

  /** The cells of a table's row: `\|` and a bar in a code span do not part them. */
  function cellsOf(line) {
    const cells = [""];
    let isCode = false;
    for (let i = 0; i < line.length; i += 1) {
      const c = line[i];
      if (c === "\\" && line[i + 1] === "|") { cells[cells.length - 1] += "|"; i += 1; continue; }
      if (c === "`") isCode = !isCode && line.indexOf("`", i + 1) > 0;
      if (c === "|" && !isCode) cells.push("");
      else cells[cells.length - 1] += c;
    }
    const trimmed = cells.map((cell) => cell.trim());
    if (trimmed[0] === "") trimmed.shift();
    if (trimmed.length && trimmed[trimmed.length - 1] === "") trimmed.pop();
    return trimmed;
  }

  /** The alignments, if the two lines begin a table. */
  function tableAt(lines, i) {
    const marks = lines[i + 1];
    if (marks === undefined || !lines[i].includes("|") || !/^[-:| \t]+$/.test(marks)) return null;
    const cells = cellsOf(marks);
    if (!cells.length || !cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
    if (cellsOf(lines[i]).length !== cells.length) return null;
    return cells.map((cell) =>
      cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "");
  }

  /** The line behind a formula that fills whole lines and begins here, or 0. */
  function formulaEnd(lines, i) {
    const first = lines[i].trim();
    const end = first.startsWith("$$") ? "$$" : first.startsWith("\\[") ? "\\]" : null;
    if (!end) return 0;
    const last = Math.min(lines.length, i + MAX_FORMULA_LINES);
    for (let j = i; j < last && !(isBlank(lines[j])); j += 1) {
      const line = lines[j].trim();
      if (line.endsWith(end) && (j > i || line.length > 3)) {
        return line.length > 2 || j > i ? j + 1 : 0;
      }
    }
    return 0;
  }

  /** Whether the line ends the paragraph before it. */
  function interrupts(lines, i, depth) {
    const line = lines[i];
    if (fenceOf(line) || HEADING.test(line) || isRule(line)) return true;
    if (depth < MAX_DEPTH && QUOTE.test(line)) return true;
    const item = depth < MAX_DEPTH && ITEM.exec(line);
    if (item && !isBlank(line.slice(item[0].length)) && !/^\d/.test(item[2])) return true;
    if (item && /^1[.)]$/.test(item[2])) return true;
    return tableAt(lines, i) !== null || formulaEnd(lines, i) > 0;
  }

  function blocksOf(lines, depth) {
    const blocks = [];
    for (let i = 0; i < lines.length;) {
      if (isBlank(lines[i])) { i += 1; continue; }
      const [end, node] = blockAt(lines, i, depth);
      blocks.push([i, node]);
      i = end;
    }
    return blocks;
  }

  const nodesOf = (lines, depth) => blocksOf(lines, depth).map(([, node]) => node);

  function blockAt(lines, i, depth) {
    const line = lines[i];
    const fence = fenceOf(line);
    if (fence) return fencedAt(lines, i, fence);
    if (indentOf(line) >= 4) return indentedAt(lines, i);
    if (isRule(line)) return [i + 1, make("hr")];
    const heading = HEADING.exec(line);
    if (heading) {
      const words = line.slice(heading[0].length).trim();
      const isClosed = / #+$/.test(words.slice(-8));
      const shown = isClosed ? words.slice(0, words.lastIndexOf(" ")) : words;
      return [i + 1, make(`h${heading[1].length}`, {}, inlineOf(shown))];
    }
    const behind = formulaEnd(lines, i);
    if (behind) {
      return [behind, make("p", {}, [formula(lines.slice(i, behind).join("\n").trim(), true)])];
    }
    if (depth < MAX_DEPTH && QUOTE.test(line)) return quoteAt(lines, i, depth);
    if (depth < MAX_DEPTH && ITEM.test(line)) return listAt(lines, i, depth);
    const alignments = tableAt(lines, i);
    if (alignments) return drawTable(lines, i, alignments, depth);
    let end = i + 1;
    while (end < lines.length && !isBlank(lines[end]) && !interrupts(lines, end, depth)) end += 1;
    return [end, make("p", {}, inlineOf(lines.slice(i, end).map((l) => l.trim()).join("\n")))];
  }

  function fencedAt(lines, i, fence) {
    const margin = indentOf(lines[i]);
    const isEnd = (line) => {
      const marks = line.trim();
      return indentOf(line) < 4 && marks.length >= fence[1].length
        && marks === fence[1][0].repeat(marks.length);
    };
    let end = i + 1;
    while (end < lines.length && !isEnd(lines[end])) end += 1;
    const code = lines.slice(i + 1, end).map((line) => dedent(line, margin));
    return [Math.min(end + 1, lines.length), drawCode(code.join("\n"), fence[2].trim())];
  }

  function indentedAt(lines, i) {
    let end = i + 1;
    while (end < lines.length && (isBlank(lines[end]) || indentOf(lines[end]) >= 4)) end += 1;
    const code = lines.slice(i, end).map((line) => dedent(line, 4));
    return [end, drawCode(code.join("\n").trimEnd(), "")];
  }

  function quoteAt(lines, i, depth) {
    let end = i;
    const inner = [];
    while (end < lines.length && QUOTE.test(lines[end])) {
      inner.push(lines[end].replace(/^ {0,3}> ?/, ""));
      end += 1;
    }
    return [end, make("blockquote", {}, nodesOf(inner, depth + 1))];
  }

  function listAt(lines, i, depth) {
    const isNumbered = /\d/.test(ITEM.exec(lines[i])[2]);
    const list = make(isNumbered ? "ol" : "ul");
    let isLoose = false;
    while (i < lines.length) {
      const item = ITEM.exec(lines[i]);
      if (!item || /\d/.test(item[2]) !== isNumbered || isRule(lines[i])) break;
      const rest = lines[i].slice(item[0].length);
      const gap = indentOf(rest);
      const margin = item[0].length + (isBlank(rest) || gap > 4 ? 1 : gap);
      const inner = [dedent(rest, gap > 4 ? 1 : gap)];
      let end = i + 1;
      for (; end < lines.length; end += 1) {
        const line = lines[end];
        if (isBlank(line)) inner.push("");
        else if (indentOf(line) >= margin) inner.push(dedent(line, margin));
        else if (isBlank(lines[end - 1]) || interrupts(lines, end, depth) || ITEM.test(line)) break;
        else inner.push(line.trimStart());
      }
      const isLast = !(end < lines.length && ITEM.test(lines[end]));
      while (inner.length > 1 && inner[inner.length - 1] === "") {
        inner.pop();
        isLoose ||= !isLast;
      }
      const number = isNumbered ? { value: parseInt(item[2], 10) } : {}; // as it was written
      list.append(make("li", number, nodesOf(inner, depth + 1)));
      i = end;
    }
    if (isLoose) list.className = "loose";
    return [i, list];
  }

  function drawTable(lines, i, alignments, depth) {
    const row = (line, name) => make("tr", {}, cellsOf(line).map((cell, column) =>
      make(name, alignments[column] ? { class: alignments[column] } : {}, inlineOf(cell))));
    const head = make("thead", {}, [row(lines[i], "th")]);
    const body = make("tbody");
    let end = i + 2;
    while (end < lines.length && lines[end].includes("|") && !interrupts(lines, end, depth)) {
      body.append(row(lines[end], "td"));
      end += 1;
    }
    const table = make("table", {}, body.firstChild ? [head, body] : [head]);
    const frame = { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" };
    return [end, make("div", frame, [table])];
  }

  function drawCode(code, label) {
    const copy = make("button", { type: "button", class: "copy-code" }, ["Copy"]);
    const head = make("figcaption", {}, [make("span", {}, [label]), copy]);
    const body = make("pre", { tabindex: "0" }, [make("code", { dir: "ltr" }, [code])]);
    return make("figure", { class: "code" }, [head, body]);
  }

  window.markdown.blocksOf = blocksOf;
})();
