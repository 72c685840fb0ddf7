// What every page does besides being read: Airflow's colours, the viewer's time zone, what it cannot do, what takes long.
// live.js keeps it fresh, forms.js changes it without a reload; what the three share is window.easeml.
// A page works without any of it: links lead somewhere, forms answer with a page.
window.easeml = (() => {
  const root = document.documentElement;
  const said = document.getElementById("said");

  const copyTheme = () => {
    try {
      const outer = window.parent.document.documentElement.classList;
      for (const mode of ["light", "dark"]) root.classList.toggle(mode, outer.contains(mode));
    } catch {
      // Not inside Airflow's frame: the system's colour mode holds.
    }
  };

  const styles = {
    clock: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
    minute: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
    day: { day: "numeric", month: "short", year: "numeric" },
    hour: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
    weekday: { weekday: "short", day: "numeric" },
  };
  const localTimes = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const text = new Date(time.dateTime).toLocaleString([], styles[time.dataset.style] || styles.minute);
      time.title = time.dateTime;
      if (time.textContent !== text) time.textContent = text;  // what stands there already may be selected
    }
  };

  // ---- what the page cannot do now is told on top of it; what was read last stays below
  const notes = document.getElementById("notes");
  // Whether news come, or have not for long; whether they are held back; why and since when no look succeeds.
  const state = { isLive: false, isSilent: false, isHeld: false, failure: "", since: null };
  const tellLive = () => {
    const mark = document.querySelector("[data-live]");
    const isFresh = state.isLive && !state.isHeld && !state.failure;
    mark?.classList.toggle("poll", !isFresh);
    const word = mark?.querySelector("[data-live-word]");
    if (word) word.textContent = isFresh ? "Live," : "Read at";
  };

  const noteOf = (name) => {
    const note = document.getElementById(name).content.cloneNode(true);
    if (name === "note-failed") {
      note.querySelector("[data-why]").textContent = state.failure;
      note.querySelector("[data-since]").dateTime = state.since.toISOString();
      note.querySelector("[data-read-at]").replaceChildren(document.querySelector("[data-live] time").cloneNode(true));
    }
    return note;
  };

  const tell = (news) => {
    Object.assign(state, news);
    state.since = state.failure ? state.since || new Date() : null;
    tellLive();
    const name = state.failure ? "note-failed" : state.isSilent ? "note-polls" : "";
    if (notes.dataset.told === name + state.failure) return;  // said once, not at each look
    notes.dataset.told = name + state.failure;
    const hadFocus = notes.contains(document.activeElement);
    notes.replaceChildren(...(name ? [noteOf(name)] : []));
    if (hadFocus) (notes.querySelector("button") || document.getElementById("main")).focus({ preventScroll: true });
    localTimes();
  };

  // ---- a press that ends on another element than it began on is none: nothing is put in the place of what is pressed
  let isPressed = false;
  const waiting = [];
  const press = (is) => {
    isPressed = is;
    if (!is) setTimeout(() => { for (const go of waiting.splice(0)) go(); });  // the click comes first
  };
  const released = () => new Promise((go) => { if (isPressed) waiting.push(go); else go(); });
  document.addEventListener("pointerdown", (event) => { if (event.button === 0) press(true); }, true);
  for (const end of ["pointerup", "pointercancel", "contextmenu"]) document.addEventListener(end, () => press(false), true);
  // Of a press that ended in a menu or outside of the window nothing else may be heard.
  document.addEventListener("pointermove", (event) => { if (isPressed && !event.buttons) press(false); }, true);

  // ---- what takes longer than a moment says so; nothing goes away meanwhile
  let acts = 0;
  const working = async (pressed, act) => {
    acts += 1;
    const slow = setTimeout(() => {
      document.getElementById("main").setAttribute("aria-busy", "true");
      pressed?.setAttribute("aria-disabled", "true");
      said.textContent = "Working";
    }, 300);
    const done = await act();
    clearTimeout(slow);
    await released();
    pressed?.removeAttribute("aria-disabled");
    acts -= 1;
    if (!acts) document.getElementById("main").removeAttribute("aria-busy");
    if (!acts && said.textContent === "Working") said.textContent = "";
    return done;
  };

  // Never throws: html is null where no page came.
  const ask = async (address, how = {}) => {
    const answer = await fetch(address, { credentials: "same-origin", ...how }).catch(() => null);
    const isPage = (answer?.headers.get("content-type") || "").startsWith("text/html");
    const html = isPage ? await answer.text().catch(() => null) : null;
    return { html, isGood: html !== null && answer.ok, status: answer?.status, url: answer?.url, isMoved: answer?.redirected };
  };

  const messageOf = ({ html, status }) => {
    const message = html && new DOMParser().parseFromString(html, "text/html").querySelector("[role=alert] b")?.textContent;
    return message || (status ? `The server answered ${status}.` : "The server does not answer.");
  };

  return { copyTheme, localTimes, state, tell, released, isActing: () => isPressed || acts > 0, working, ask, messageOf };
})();
