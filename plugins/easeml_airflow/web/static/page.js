// Copies Airflow's colour mode, shows times in the viewer's zone, and fetches the page anew now and then.
(() => {
  const root = document.documentElement;

  const copyTheme = () => {
    try {
      const outer = window.parent.document.documentElement.classList;
      for (const mode of ["light", "dark"]) root.classList.toggle(mode, outer.contains(mode));
    } catch {
      // Not inside Airflow's frame: the system's colour mode holds.
    }
  };

  const localTimes = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      time.title = time.dateTime;
      time.textContent = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    }
  };

  const fetchAnew = async () => {
    if (document.hidden) return;
    const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
    if (answer === null || !(answer.headers.get("content-type") || "").startsWith("text/html")) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of ["main", ".bar-end"]) {
      const [now, next] = [document.querySelector(part), fresh.querySelector(part)];
      if (now && next) now.replaceWith(document.adoptNode(next));
    }
    localTimes();
  };

  copyTheme();
  localTimes();
  document.querySelector("tr[aria-current]")?.scrollIntoView({ block: "center" });  // the study that a task's link named
  const seconds = Number(root.dataset.refresh);
  if (seconds > 0) setInterval(() => { copyTheme(); fetchAnew(); }, seconds * 1000);
})();
