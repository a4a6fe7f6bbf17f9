/* Markdown within a paragraph, as nodes: emphasis, code, links, formulas. One pass over the text; what
   waits for its end is on a short stack, so a character is looked at a bounded number of times.

   No HTML is ever parsed: the nodes are made here, so a message can hold the elements that are named
   here and in markdown_blocks.js and no others. Every character that is not the mark of one of them
   becomes text. */
window.markdown = (() => {
  const MAX_OPEN = 24; // emphasis and brackets waiting for their end; older ones become text
  const MAX_RUN = 3; // more asterisks in a row are text
  const MAX_ADDRESS = 2_000;
  const MAX_FORMULA = 2_000;

  function make(name, attributes = {}, children = []) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    let text = ""; // one node for all the strings in a row
    for (const child of children) {
      if (typeof child === "string") { text += child; continue; }
      if (text) element.append(text);
      text = "";
      element.append(child);
    }
    if (text) element.append(text);
    return element;
  }

  // What hides, moves, colours or chooses among its parts, defines what does, or is not shown.
  const UNCLEAR = new RegExp(
    "\\\\(?:[hv]?phantom|smash|(?:math)?[rlc]lap|raisebox|m?kern|[hm]skip|[hv]space|rule|tiny|[hH]uge"
    + "|(?:text)?color|f?colorbox|href|url|includegraphics|html\\w*|[gex]?def|let|futurelet|global"
    + "|long|(?:re)?newcommand|providecommand|char|mathchoice|(?:err)?message)(?![a-zA-Z])"
    + "|\\\\@|(?<!\\\\)%",
  );

  const formula = (source, isDisplayed) =>
    source.length > MAX_FORMULA || UNCLEAR.test(source)
      ? make("code", { dir: "ltr" }, [source])
      : make("span", { class: isDisplayed ? "formula wide" : "formula", dir: "ltr" }, [source]);

  const PUNCTUATION = /[\p{P}\p{S}]/u;
  const ESCAPABLE = /[!-/:-@[-`{-~]/;
  const isSpace = (c) => c === undefined || /\s/.test(c);
  const isMark = (c) => c !== undefined && PUNCTUATION.test(c);
  const BARE_ADDRESS = new RegExp(`https?://[^\\s<>"\`[\\]]{1,${MAX_ADDRESS}}`, "iy");
  const ADDRESS_IN_ANGLES = new RegExp(`<((?:https?://|mailto:)[^\\s<>]{1,${MAX_ADDRESS}})>`, "iy");

  /** An address that a link may have: another place of the web, or mail. */
  function addressOf(text) {
    if (!/^(https?:\/\/|mailto:)/i.test(text) || text.length > MAX_ADDRESS) return null;
    try {
      return new URL(text).href;
    } catch {
      return null;
    }
  }

  const link = (href, children) =>
    make("a", { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" }, children);

  /** `(address)` or `(address "title")` from `at`: the address and what is behind it. */
  function destinationAt(text, at) {
    let end = at + 1;
    const last = Math.min(text.length, at + MAX_ADDRESS);
    let depth = 0;
    for (; end < last; end += 1) {
      const c = text[end];
      if (/\s/.test(c) || c === "<" || (c === ")" && depth === 0)) break;
      if (c === "(" && (depth += 1) > 8) return null;
      if (c === ")") depth -= 1;
    }
    const href = addressOf(text.slice(at + 1, end));
    if (!href || end >= last) return null;
    const title = /^\s+("[^"\n]{0,300}"|'[^'\n]{0,300}')\s*/.exec(text.slice(end, end + 320));
    const words = title ? title[1].slice(1, -1) : "";
    if (title) end += title[0].length;
    return text[end] === ")" ? { href, words, end: end + 1 } : null;
  }

  /** A function that finds the next `mark` at or after a place, reading the text once in all. */
  function finder(text, mark) {
    let next = 0;
    return (at) => {
      if (next >= 0 && next < at) next = text.indexOf(mark, at);
      return next;
    };
  }

  /** For each run of backticks, where the next run of the same length begins. */
  function codeEnds(text) {
    const ends = new Map();
    const latest = new Map();
    for (const { index, 0: run } of [...text.matchAll(/`+/g)].reverse()) {
      ends.set(index, latest.get(run.length) ?? -1);
      latest.set(run.length, index);
    }
    return ends;
  }

  function inlineOf(text) {
    const out = []; // nodes and strings
    const open = []; // { mark, count, at: its place in `out` }
    const ends = codeEnds(text);
    const formulaEnds = { "\\(": finder(text, "\\)"), $$: finder(text, "$$") };
    let plain = "";
    const flush = () => { if (plain) out.push(plain); plain = ""; };
    const put = (node) => { flush(); out.push(node); };
    const wait = (mark, count) => {
      put(mark.repeat(count));
      open.push({ mark, count, at: out.length - 1 });
      if (open.length > MAX_OPEN) open.shift();
    };

    function close(mark, count) {
      let left = count;
      while (left > 0) {
        let top = open.length - 1;
        while (top >= 0 && open[top].mark !== mark) top -= 1;
        if (top < 0) break;
        flush();
        const opener = open[top];
        const used = Math.min(2, left, opener.count);
        const name = mark === "~" ? "del" : used === 2 ? "strong" : "em";
        const node = make(name, {}, out.splice(opener.at + 1));
        open.length = top + 1;
        opener.count -= used;
        left -= used;
        if (opener.count) out[opener.at] = mark.repeat(opener.count);
        else { out.pop(); open.pop(); }
        out.push(node);
      }
      return left;
    }

    function run(mark, at) {
      let end = at;
      while (text[end] === mark) end += 1;
      const count = end - at;
      const [before, after] = [text[at - 1], text[end]];
      const left = !isSpace(after) && (!isMark(after) || isSpace(before) || isMark(before));
      const right = !isSpace(before) && (!isMark(before) || isSpace(after) || isMark(after));
      const isWord = mark === "_"; // inside a word it is a letter
      const canOpen = isWord ? left && (!right || isMark(before)) : left;
      const canClose = isWord ? right && (!left || isMark(after)) : right;
      if (count > MAX_RUN || (mark === "~" && count !== 2)) plain += mark.repeat(count);
      else {
        const rest = canClose ? close(mark, count) : count;
        if (rest && canOpen) wait(mark, rest);
        else plain += mark.repeat(rest);
      }
      return end;
    }

    function bracketEnd(at) {
      let top = open.length - 1;
      while (top >= 0 && open[top].mark !== "[") top -= 1;
      const found = top >= 0 && text[at + 1] === "(" ? destinationAt(text, at + 1) : null;
      if (!found) {
        if (top >= 0) open.splice(top, 1);
        plain += "]";
        return at + 1;
      }
      flush();
      const inside = out.splice(open[top].at + 1);
      out.pop();
      open.length = top;
      for (let i = open.length - 1; i >= 0; i -= 1) if (open[i].mark === "[") open.splice(i, 1);
      out.push(link(found.href, inside.length ? inside : [found.href]));
      if (found.words) plain += ` (${found.words})`;
      return found.end;
    }

    for (let i = 0; i < text.length;) {
      const c = text[i];
      const pair = text.slice(i, i + 2);
      if (pair in formulaEnds) {
        const end = formulaEnds[pair](i + 2);
        const isWhole = end > i + 2 && end - i < MAX_FORMULA
          && (pair === "\\(" || !(isSpace(text[i + 2]) || isSpace(text[end - 1])));
        if (isWhole) {
          put(formula(text.slice(i, end + 2), false));
          i = end + 2;
          continue;
        }
      }
      if (c === "\\" && text[i + 1] !== undefined && ESCAPABLE.test(text[i + 1])) {
        plain += text[i + 1];
        i += 2;
      } else if (c === "\n") {
        put(make("br"));
        i += 1;
      } else if (c === "`") {
        let begin = i;
        while (text[begin] === "`") begin += 1;
        const end = ends.get(i) ?? -1;
        if (end < 0) { plain += text.slice(i, begin); i = begin; continue; }
        const code = text.slice(begin, end);
        const isPadded = code.trim() !== "" && code.startsWith(" ") && code.endsWith(" ");
        put(make("code", { dir: "ltr" }, [isPadded ? code.slice(1, -1) : code]));
        i = end + (begin - i);
      } else if (c === "*" || c === "_" || c === "~") {
        i = run(c, i);
      } else if (c === "[") {
        wait("[", 1);
        i += 1;
      } else if (c === "]") {
        i = bracketEnd(i);
      } else if (c === "<") {
        ADDRESS_IN_ANGLES.lastIndex = i;
        const found = ADDRESS_IN_ANGLES.exec(text);
        const href = found && addressOf(found[1]);
        if (href) put(link(href, [found[1]]));
        else plain += c;
        i += href ? found[0].length : 1;
      } else if ((c === "h" || c === "H") && !/\w/.test(text[i - 1] ?? " ")) {
        BARE_ADDRESS.lastIndex = i;
        let shown = BARE_ADDRESS.exec(text)?.[0] ?? "";
        let end = shown.length;
        const isPaired = shown.includes("(");
        const ends = isPaired ? ".,:;!?*_~'}" : ".,:;!?*_~'})";
        while (end && ends.includes(shown[end - 1])) end -= 1;
        shown = shown.slice(0, end);
        const isLinked = open.some(({ mark }) => mark === "["); // or a link would be in a link
        const href = isLinked ? null : addressOf(shown);
        if (href) put(link(href, [shown]));
        else plain += shown || c;
        i += shown.length || 1;
      } else {
        plain += c;
        i += 1;
      }
    }
    flush();
    return out;
  }

  return { make, formula, inlineOf };
})();
