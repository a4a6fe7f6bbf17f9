/* Runs of the laboratory: one streamed answer each. Closing it, or leaving the page, ends the run. */
(() => {
  const asSentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

  /** The answer's JSON. Throws the server's sentence. */
  async function ask(path, body, signal = undefined) {
    const answer = await fetch(path, {
      method: "POST", body: JSON.stringify(body), signal, headers: { "Content-Type": "application/json" },
    });
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => null);
    throw new Error(asSentence(told?.detail ?? `the server answered ${answer.status}`));
  }

  async function* eventsOf(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice("data: ".length));
    }
  }

  /** Start a run; `take(event)` gets each of its events. The promise tells how it ended: "finished",
      or "stopped"; it throws a sentence where the run failed. */
  function run(path, body, take) {
    const control = new AbortController();
    const ended = (async () => {
      try {
        for await (const event of eventsOf(await ask(path, body, control.signal))) {
          if (event.kind === "problem") throw new Error(event.problem);
          take(event);
        }
        return "finished";
      } catch (error) {
        if (control.signal.aborted) return "stopped";
        throw error instanceof TypeError ? new Error("The connection broke off.") : error;
      }
    })();
    return { stop: () => control.abort(), ended };
  }

  /** Calls `draw` soon, and at most once in so many milliseconds. */
  function paced(draw, everyMs) {
    let timer = null;
    return () => { timer ??= setTimeout(() => { timer = null; draw(); }, everyMs); };
  }

  Object.assign(window.lab, { ask, run, paced });
})();
