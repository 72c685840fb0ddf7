// The planner: what is typed or moved is sent, and the parts that do not hold the cursor are replaced.
// Without a script the form has a button, and the page comes back as a whole.
(() => {
  let wanted = 0;
  let typing;

  const replaceParts = (html) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const focus = document.activeElement?.id;
    for (const now of document.querySelectorAll("[data-part]")) {
      const next = fresh.getElementById(now.id);
      if (next && now.innerHTML !== next.innerHTML) now.replaceWith(document.adoptNode(next));
    }
    const [now, next] = [document.getElementById("p-condition"), fresh.getElementById("p-condition")];
    if (now && next && document.activeElement !== now) now.value = next.value;
    if (now && next?.hasAttribute("aria-invalid")) now.setAttribute("aria-invalid", "true");
    else now?.removeAttribute("aria-invalid");
    if (focus && document.activeElement?.id !== focus) document.getElementById(focus)?.focus({ preventScroll: true });
  };

  const send = async (form) => {
    const turn = ++wanted;
    const address = new URL(form.action, location.href);
    address.hash = "";
    address.search = new URLSearchParams(new FormData(form)).toString();
    const answer = await fetch(address, { credentials: "same-origin" }).catch(() => null);
    if (turn !== wanted || !answer?.ok) return;  // a later one is on its way, or the page will say what is wrong
    const html = await answer.text();
    if (turn !== wanted) return;
    replaceParts(html);
    history.replaceState({}, "", address);
    if (document.querySelector("[data-part][data-again]")) setTimeout(() => { if (turn === wanted && !document.querySelector("dialog[open]")) send(form); }, 300);
  };

  const planOf = (field) => (field.form?.matches("[data-plan]") ? field.form : null);

  document.addEventListener("input", (event) => {
    const field = event.target;
    const form = planOf(field);
    if (!form) return;
    if (field.type === "range") {
      const value = Number(field.dataset.stops.split(" ")[field.value]);
      field.previousElementSibling.textContent = value.toLocaleString("en", { maximumFractionDigits: 8 });
      field.setAttribute("aria-valuetext", field.previousElementSibling.textContent);
      field.style.setProperty("--v", `${(100 * field.value) / field.max}%`);
    } else if (field.type === "text") {
      clearTimeout(typing);
      typing = setTimeout(() => send(form), 200);
    }
  });
  document.addEventListener("change", (event) => {
    const form = planOf(event.target);
    if (form && event.target.type !== "text") send(form);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-plan]")) return;
    event.preventDefault();
    send(event.target);
  });
})();
