// The views, and which key goes to which.
import { ask, make, say, tried } from "./ask.js";
import { clusters } from "./clusters.js";
import { agreement, study } from "./facts.js";
import { AllLabels, Next } from "./labels.js";
import { regions } from "./regions.js";

const host = document.getElementById("view");
const views = {};
let open = null;

function legend(keys) {
  const every = [...keys, ["C R L N A S", "views"]];
  document.getElementById("keys").replaceChildren(...every.flatMap(([key, words]) => [make("kbd", {}, key), ` ${words}`]));
}

async function show(letter) {
  open = views[letter];
  document.getElementById("views").replaceChildren(...Object.entries(views).map(([each, view]) =>
    make("button", { "aria-current": view === open ? "true" : null, onclick: () => tried(() => show(each)) }, view.title)));
  say("");
  legend(open.legend);
  host.replaceChildren();
  await open.load(host);
  if (!host.contains(document.activeElement)) host.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "INPUT") return;
  if (event.key in views) tried(() => show(event.key));
  else if (event.key === "Enter" && event.target.tagName === "BUTTON") return;
  else if (!open?.keys(event.key)) return;
  event.preventDefault();
});

await tried(async () => {
  const desk = await ask("/api/desk");
  document.getElementById("study").textContent = `${desk.site}: ${desk.study}`;
  document.getElementById("reviewer").textContent = `${desk.images} images · reviewer ${desk.reviewer}`;
  Object.assign(views, {
    C: clusters, R: regions, L: new AllLabels("Labels", desk.classes),
    N: new Next("Label next", desk.classes), A: agreement, S: study,
  });
  await show("C");
});
