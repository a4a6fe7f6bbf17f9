/* Three things that only a fixed memory can do, each shown live by one click on the first screen. The
   words are in assets/examples.json. */
(() => {
  const WAIT_MS = 150;
  const MAX_WAIT_MS = 10 * 60_000;
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  let running = null; // the demonstration that goes on; another one ends it

  /** Until the reply to what was sent is there. */
  async function answered(count, mine) {
    const end = Date.now() + MAX_WAIT_MS;
    while (Date.now() < end && running === mine) {
      const messages = window.conversation.messages();
      if (!window.page.isBusy() && messages.length >= count
        && messages[messages.length - 1].role === "assistant") return true;
      await pause(WAIT_MS);
    }
    return false;
  }

  async function say(text, mine) {
    const count = window.conversation.messages().length + 2;
    window.page.send(text);
    return answered(count, mine);
  }

  const DEMOS = {
    async read({ filler, times, fact, question }, mine) {
      const half = Array.from({ length: times }, () => filler).join(" ");
      if (!await say(`${half} ${fact} ${half}`, mine)) return;
      await say(question, mine);
    },

    async fork({ first, second, question }, mine) {
      if (!await say(first, mine) || !await say(question, mine)) return;
      await pause(1_200);
      window.conversation.sayInstead(0, second);
      await pause(600);
      if (!await answered(2, mine)) return;
      if (await say(question, mine)) {
        window.page.note("Both are there: ‹ and › under the first message change between them, and "
          + "nothing is read again.");
      }
    },

    async take({ first }, mine) {
      if (await say(first, mine)) window.memory.save();
    },
  };

  window.demos = {
    begin(element) {
      const demo = JSON.parse(element.dataset.words);
      const mine = running = {};
      DEMOS[demo.kind]?.(demo, mine);
    },
  };
})();
