// The labelling desk by keys: 1 to 9 and 0 label, U cannot tell, Z undo, + zoom, ? the list of keys; and a labeler's pace.
// Every key presses a button of the page, so that the same works without a script.
(() => {
  const said = document.getElementById("said");
  const find = (key) => document.querySelector(`main [data-key="${CSS.escape(key)}"]`);

  let isLarge = false;  // the next example is as large as the last
  const zoom = (is) => {
    isLarge = is;
    for (const part of document.querySelectorAll("[data-zoom]")) part.classList.toggle("large", is);
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("input, select, textarea, dialog[open]")) return;
    if (event.key === "+") return zoom(!isLarge);
    const button = find(event.key.toLowerCase());
    // While a label is on its way, what can be undone is still the one before it.
    if (!button || (button.form && document.querySelector("main form[aria-busy=true]"))) return;
    event.preventDefault();
    button.click();
  });

  // ---- pace: the mean time between two labels of this visit; a pause longer than two minutes does not count
  const LONGEST_PAUSE_MS = 120_000;
  let [before, spent, labels, mine] = [Date.now(), 0, 0, null];
  const pace = () => {
    const desk = document.querySelector(".desk");
    if (!desk) return;
    const now = Number(desk.dataset.mine);
    if (mine !== null && now > mine && Date.now() - before < LONGEST_PAUSE_MS) {
      spent += Date.now() - before;
      labels += 1;
    }
    [mine, before] = [now, Date.now()];
    if (!labels) return;
    const seconds = spent / labels / 1000;
    document.querySelector("[data-pace]").textContent = `${seconds.toFixed(1)} s a label`;
    const forecast = document.querySelector("[data-forecast]");
    const minutes = (Number(forecast.dataset.left) * seconds) / 60;
    if (minutes >= 1) forecast.textContent = `About ${Math.round(minutes)} minutes at your pace of ${seconds.toFixed(1)} s a label.`;
  };

  // ---- what was saved is said once, not again with news
  const savedNow = () => {
    const note = document.querySelector("[data-saved] > div");
    return note ? `${note.childNodes[0].textContent.trim()} ${note.querySelector("b")?.textContent || ""}` : "";
  };
  let saved = savedNow();
  document.addEventListener("easeml:put", () => {
    const now = savedNow();
    if (now && now !== saved && said) said.textContent = now;
    saved = now;
    zoom(isLarge);
    pace();
  });
  pace();
})();
