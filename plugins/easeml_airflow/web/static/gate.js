// The planner: what is typed or moved is sent, and the parts that do not hold the cursor are replaced.
// Without a script the form has a button, and the page comes back as a whole.
(() => {
  const { isActing, working, ask, stand, begin, isLast } = window.easeml;
  let [typing, counting, isLate] = [null, null, false];

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

  // A dialog stands in a part: while one is open nothing is replaced, and it is asked anew once it is closed.
  const hasDialog = () => document.querySelector("dialog[open]") !== null;
  const sendOrWait = () => {
    isLate = hasDialog();
    if (!isLate) send();
  };
  document.addEventListener("close", () => { if (isLate) sendOrWait(); }, true);

  const send = async () => {
    const form = document.querySelector("form[data-plan]");  // the one that was typed into may be gone by now
    if (!form) return;
    clearTimeout(counting);
    const turn = begin();
    const address = new URL(form.action, location.href);
    address.hash = "";
    address.search = new URLSearchParams(new FormData(form)).toString();
    const found = await working(null, () => ask(address));
    if (!isLast(turn)) return askAgain();  // a later one is on its way
    if (!found.isGood) return;  // the page will say what is wrong
    isLate = hasDialog();
    if (isLate) return;
    replaceParts(found.html);
    stand(address, false);
    askAgain();
  };

  // A plan that takes long to count comes without its numbers, and says so. What is on its way is answered first.
  const askAgain = () => {
    clearTimeout(counting);
    if (document.querySelector("[data-part][data-again]")) counting = setTimeout(() => (isActing() ? askAgain() : sendOrWait()), 300);
  };

  const isOfPlan = (field) => field.form?.matches("[data-plan]");

  document.addEventListener("input", (event) => {
    const field = event.target;
    if (!isOfPlan(field)) return;
    if (field.type === "range") {
      const value = Number(field.dataset.stops.split(" ")[field.value]);
      field.previousElementSibling.textContent = value.toLocaleString("en", { maximumFractionDigits: 8 });
      field.setAttribute("aria-valuetext", field.previousElementSibling.textContent);
      field.style.setProperty("--v", `${(100 * field.value) / field.max}%`);
    } else if (field.type === "text") {
      begin();  // what is on its way was asked of an older text
      clearTimeout(typing);
      typing = setTimeout(send, 200);
    }
  });
  document.addEventListener("change", (event) => {
    if (isOfPlan(event.target) && event.target.type !== "text") send();
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-plan]")) return;
    event.preventDefault();
    clearTimeout(typing);
    send();
  });
  document.addEventListener("easeml:put", () => {
    isLate = false;
    askAgain();
  });
  askAgain();
})();
