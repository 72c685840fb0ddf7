// A moment that is asked for in UTC is typed in the viewer's zone; what is sent stays UTC. Without a script it is UTC.
(() => {
  const two = (number) => String(number).padStart(2, "0");
  const here = (utc) => {
    const at = new Date(`${utc}Z`);
    const day = `${String(at.getFullYear()).padStart(4, "0")}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    return `${day}T${two(at.getHours())}:${two(at.getMinutes())}`;
  };
  const utcOf = (local) => {
    const at = new Date(local);  // without a zone, so in the viewer's
    return Number.isNaN(at.getTime()) ? "" : at.toISOString().slice(0, 16);
  };

  const speakTheirZone = () => {
    for (const typed of document.querySelectorAll("input[data-utc][name]")) {
      const utc = typed.getAttribute("value");
      const sent = Object.assign(document.createElement("input"), { type: "hidden", name: typed.name, value: utc });
      typed.removeAttribute("name");  // what is typed is not sent, and no second one is made for it
      typed.after(sent);
      typed.value = utc && here(utc);
      for (const label of typed.labels) label.textContent = label.textContent.replace("UTC", "your time zone");
      // Only a change is turned back: of an hour that there is twice, what was set stays what it was.
      typed.addEventListener("input", () => { sent.value = utcOf(typed.value); });
    }
  };
  document.addEventListener("easeml:put", speakTheirZone);
  speakTheirZone();
})();
