// The map of very many studies: arrow keys move from cell to cell, Enter or a click opens the study.
(() => {
  const base = document.documentElement.dataset.base;
  const said = document.getElementById("said");
  let [at, name] = [-1, null];

  const parts = () => {
    const map = document.getElementById("map");
    return map && { map, names: map.dataset.names.split("\n"), high: Number(map.dataset.high), mark: map.querySelector(".at") };
  };

  const point = ({ map, names, high, mark }, cell) => {
    at = Math.max(0, Math.min(names.length - 1, cell));
    mark.setAttribute("x", Math.floor(at / high) * 10 - 1);
    mark.setAttribute("y", (at % high) * 10 - 1);
    mark.removeAttribute("hidden");
    name = names[at];
    map.querySelector("#map-at").textContent = name;
  };

  const open = ({ names }) => { if (at >= 0) location.href = `${base}/studies/${encodeURIComponent(names[at])}`; };

  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "map") return;
    const found = parts();
    const step = { ArrowDown: 1, ArrowUp: -1, ArrowRight: found.high, ArrowLeft: -found.high, Home: -1e9, End: 1e9 }[event.key];
    if (step !== undefined) { event.preventDefault(); point(found, at < 0 ? 0 : at + step); said.textContent = name; }
    else if (event.key === "Enter") open(found);
  });

  const cellOf = (found, event) => {
    const svg = event.target.closest?.("svg.tmap");
    if (!svg) return -1;
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const cell = Math.floor(place.x / 10) * found.high + Math.floor(place.y / 10);
    return place.y >= 0 && place.y < found.high * 10 && cell >= 0 && cell < found.names.length ? cell : -1;
  };

  document.addEventListener("pointermove", (event) => {
    const found = event.target.closest?.("svg.tmap") && parts();
    const cell = found ? cellOf(found, event) : -1;
    if (cell >= 0 && cell !== at) point(found, cell);
  });
  document.addEventListener("click", (event) => {
    const found = event.target.closest?.("svg.tmap") && parts();
    if (found && cellOf(found, event) >= 0) { point(found, cellOf(found, event)); open(found); }
  });

  // News brings a fresh map: the mark stays at its study, wherever that stands now, and nothing is said of it again.
  document.addEventListener("easeml:put", () => {
    const found = parts();
    at = found ? found.names.indexOf(name) : -1;
    if (at >= 0) point(found, at);
    else name = null;
  });
})();
