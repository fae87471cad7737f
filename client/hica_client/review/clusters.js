// The pseudo-labels of stage 1: what is alike to the model, to accept, to reject or to name.
import { ask, make, say, tried } from "./ask.js";
import { Gallery, KEYS } from "./gallery.js";

export const clusters = {
  title: "Clusters",
  legend: [["a", "accept"], ["r", "reject"], ["e", "name"], ["u", "undo"], ["[ ]", "cluster"], ...KEYS],

  async load(host) {
    this.host = host;
    this.told = await ask("/api/clusters");
    this.at = 0;
    if (!this.told.clusters.length) return host.replaceChildren(make("p", {}, this.told.why));
    await this.show();
  },

  get current() {
    return this.told.clusters[this.at];
  },

  async show() {
    this.gallery = new Gallery(`/api/clusters/${this.current.number}?`, false);
    this.list = make("nav", { class: "list", "aria-label": "Clusters" });
    this.name = make("input", {
      maxlength: "80", placeholder: "name", "aria-label": "Name of the cluster",
      onkeydown: (event) => this.named(event),
    });
    this.heading = make("h2", {});
    const unused = this.told.used ? "" : "A private study does not use verdicts on whole clusters, which "
      + "depend on many patients at once: leave images out one by one (x).";
    this.host.replaceChildren(make("div", { class: "columns" }, this.list, make("section", {},
      make("p", { class: "faint" }, unused),
      make("div", { class: "head" }, this.heading, this.name, this.gallery.where), this.gallery.element)));
    this.draw();
    await this.gallery.load(0);
  },

  draw() {
    const mark = { accept: "✓", reject: "✗" };
    const { number, images, verdict, name } = this.current;
    this.list.replaceChildren(...this.told.clusters.map((each, place) => make("button", {
      class: each.verdict, "aria-current": place === this.at ? "true" : null,
      onclick: () => this.go(place),
    }, `${mark[each.verdict] ?? "·"} ${each.number} ${each.name} (${each.images})`)));
    this.heading.textContent = `Cluster ${number}: ${images} images`
      + (verdict ? `, ${verdict}ed` : "");
    this.heading.className = verdict ?? "";
    this.name.value = name;
  },

  async go(place) {
    if (place < 0 || place >= this.told.clusters.length) return;
    this.at = place;
    await tried(() => this.show());
  },

  async judge(verdict, name = this.current.name) {
    const number = this.current.number;
    this.told = await ask(`/api/clusters/${number}`, { verdict, name });
    this.draw();
    say({
      accept: `cluster ${number} is accepted`,
      reject: `cluster ${number} is rejected: its images are left out of the next rounds`,
    }[verdict] ?? `cluster ${number}: undone`);
  },

  named(event) {
    event.stopPropagation();
    if (event.key !== "Enter" && event.key !== "Escape") return;
    const name = event.key === "Enter" ? this.name.value.trim() : this.current.name;
    tried(() => this.judge(this.current.verdict, name));
    this.gallery.focus(this.gallery.at);
  },

  keys(key) {
    if (!this.gallery) return false;
    if (key === "a") tried(() => this.judge("accept"));
    else if (key === "r") tried(() => this.judge("reject"));
    else if (key === "u") tried(() => this.judge(null));
    else if (key === "e") this.name.focus();
    else if (key === "[") this.go(this.at - 1);
    else if (key === "]") this.go(this.at + 1);
    else return this.gallery.keys(key);
    return true;
  },
};
