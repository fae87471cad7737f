// How two reviewers agree, and what the study came to at this site.
import { ask, make, table } from "./ask.js";

const shown = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export const agreement = {
  title: "Agreement",
  legend: [],
  async load(host) {
    const { pairs, differ, more } = await ask("/api/agreement");
    const rows = pairs.map((each) => [each.of, each.reviewers.join(", "), String(each.things), String(each.same), shown(each.kappa)]);
    const differences = differ.map((each) => [
      each.key ? make("img", { src: `/small/${each.key}`, alt: "", width: "66", height: "66" }) : "",
      `${each.of} ${each.what}`,
      Object.entries(each.said).map(([who, said]) => `${who}: ${said || "none of the classes"}`).join("; ")]);
    host.replaceChildren(
      make("h2", {}, "Agreement of two reviewers"),
      pairs.length ? table(["of", "reviewers", "both looked at", "same", "Cohen's kappa"], rows)
        : make("p", {}, "No thing was looked at by two reviewers yet. Start the page with --reviewer NAME for "
          + "the second one: neither sees what the other has said."),
      make("h2", {}, `To settle: ${differ.length + more}`),
      make("p", { class: "faint" }, "Until they agree, what one has rejected is left out, and a label that they differ in is none."),
      differ.length ? table(["", "", ""], differences) : "");
  },
  keys: () => false,
};

const wrong = (words) => make("p", { class: "reject" }, words);

function left(found) {
  if (found.error) return wrong(found.error);
  if (!found.entries) return make("p", {}, "Nothing has left this site yet.");
  return make("div", {},
    make("p", {}, `${found.size} in ${found.entries} answers, ${found.first} to ${found.last}. Last hash of the audit log: ${found.hash}`),
    table(["request", "sent", "failed", "refused", "size"],
      found.kinds.map((each) => [each.kind, String(each.sent), String(each.failed), String(each.refused), each.size])));
}

function privacy(found) {
  if (found === null) return make("p", {}, "The study is not private: no ε is spent.");
  if (found.error) return wrong(found.error);
  return table(["ε spent", "of", "left", "δ", "unit"],
    [[shown(found.epsilon, 3), shown(found.max_epsilon, 3), shown(found.left, 3), String(found.delta), found.unit ?? "–"]]);
}

function result(found) {
  if (found === null) return make("p", {}, "The study is not over at this site.");
  if (found.error) return wrong(found.error);
  return make("div", {},
    found.models.length ? table(["on held-out images, % [95 %]", ...found.metrics], found.models.map((each) => [each.model, ...each.metrics]))
      : make("p", {}, `not measured: ${found.why}`),
    ...found.gain.map((each) => make("p", {}, `Joining gave: ${each}, against training alone.`)));
}

export const study = {
  title: "Study",
  legend: [],
  async load(host) {
    const found = await ask("/api/facts");
    host.replaceChildren(
      make("h2", {}, `${found.study} at ${found.site}`), make("p", { class: "faint" }, `hash ${found.hash}`),
      make("h2", {}, "What left"), left(found.left),
      make("h2", {}, "Privacy spent"), privacy(found.privacy),
      make("h2", {}, "Joined against alone"), result(found.result));
  },
  keys: () => false,
};
