/* A long conversation in stretches of a few rows. One that is out of sight is neither laid out nor
   painted (style.css), and its replies are only their words until it comes near: the browser's search
   finds them and a screen reader reads them in their order, without form and tools.

   So what a token or a frame costs does not grow with the number of messages. */
window.stretches = (() => {
  const SIZE = 10; // rows
  const NUM_AT_END = 2; // stretches whose rows are there at once
  // Of the window's height, before and after it. The browser lays out what is within 150 %.
  const NEAR = "200%";

  /** Keeps rows, in their order, in the element `list`, which is scrolled in `scroller`; `onNear` is
      told the elements of rows that may soon be seen, more than once. */
  class Stretches {
    constructor(list, scroller, onNear) {
      this.list = list;
      this.onNear = onNear;
      this.near = new Set();
      list.replaceChildren();
      this.watching = new IntersectionObserver((entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting) this.near.add(target);
          else this.near.delete(target);
          if (isIntersecting) onNear([...target.children]);
        }
      }, { root: scroller, rootMargin: `${NEAR} 0px` });
    }

    /** Put all rows in; those that stay where they are are not touched. */
    place(rows) {
      const those = rowsOfStretches(rows);
      const { children } = this.list;
      while (children.length > those.length) this.take(this.list.lastChild);
      those.forEach((wanted, i) => fill(children[i] ?? this.add(), wanted));
      for (const stretch of this.near) this.onNear([...stretch.children]);
      for (const stretch of [...children].slice(-NUM_AT_END)) this.onNear([...stretch.children]);
    }

    /** Put one row behind all others. */
    append(row) {
      const last = this.list.lastChild;
      const isFull = !last || (last.children.length >= SIZE && !isBeside(last.lastChild, row));
      (isFull ? this.add() : last).append(row);
    }

    add() {
      const stretch = document.createElement("div");
      stretch.className = "stretch";
      this.list.append(stretch);
      this.watching.observe(stretch);
      return stretch;
    }

    take(stretch) {
      this.watching.unobserve(stretch);
      this.near.delete(stretch);
      stretch.remove();
    }
  }

  /** Two replies that stand side by side are in one stretch. */
  const isBeside = (one, other) => one.matches(".pair") && other.matches(".pair");

  function rowsOfStretches(rows) {
    const found = [];
    for (const row of rows) {
      const last = found[found.length - 1];
      if (last && (last.length < SIZE || isBeside(last[last.length - 1], row))) last.push(row);
      else found.push([row]);
    }
    return found;
  }

  function fill(stretch, rows) {
    rows.forEach((row, i) => {
      if (stretch.children[i] !== row) stretch.insertBefore(row, stretch.children[i] ?? null);
    });
    while (stretch.children.length > rows.length) stretch.lastChild.remove();
  }

  /** The row before or after a row, or null. */
  function neighbour(row, step) {
    const [sibling, end] = step < 0 ? ["previousElementSibling", "lastElementChild"]
      : ["nextElementSibling", "firstElementChild"];
    return row[sibling] ?? row.parentElement[sibling]?.[end] ?? null;
  }

  return { Stretches, neighbour };
})();
