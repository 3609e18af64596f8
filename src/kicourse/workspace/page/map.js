// The map and JupyterLab live in two tabs that find each other by name.
window.name = "kicourse-map";
const base = document.body.dataset.base;

// Keeps the map up to date while a notebook in the other tab earns points.
async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(`${base}kicourse/progress`);
    document.getElementById("stopped").hidden = answer.ok;
    const shown = document.querySelector("main");
    if (!answer.ok || (await answer.json()).revision === shown.dataset.revision) return;
    const page = await (await fetch(location.href)).text();
    show(new DOMParser().parseFromString(page, "text/html").querySelector("main"));
  } catch {
    document.getElementById("stopped").hidden = false;
  }
}

function show(latest) {
  const focused = document.activeElement?.getAttribute("href");
  document.querySelector("main").replaceWith(latest);
  if (focused) latest.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  document.getElementById("spoken").textContent = document.getElementById("points").textContent;
}

setInterval(refresh, 2000);
document.addEventListener("visibilitychange", refresh);
window.addEventListener("pageshow", refresh);
