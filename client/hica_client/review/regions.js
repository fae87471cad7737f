// The regions of each image that is learnt from, drawn over it.
import { ask, make, say, tried } from "./ask.js";

export const regions = {
  title: "Regions",
  legend: [["1…9", "accept or reject one"], ["a", "accept all"], ["r", "reject all"], ["u", "undo"],
    ["n p", "image"]],

  async load(host) {
    this.host = host;
    this.all = await ask("/api/regions");
    this.at = 0;
    if (!this.all.length) return host.replaceChildren(make("p", {}, "no image of this site is learnt from in this study"));
    await this.show();
  },

  async show() {
    this.told = await ask(`/api/regions/${this.all[this.at]}`);
    this.draw();
  },

  draw() {
    const { image, regions: found } = this.told;
    const outlines = found.map((each) => make("img", {
      src: `/outline/${image.key}/${each.place}`, alt: "", class: each.verdict === "reject" ? "off" : null,
    }));
    const words = { accept: ", accepted", reject: ", rejected" };
    const rows = found.map((each) => make("button", {
      class: each.verdict, onclick: () => tried(() => this.toggle(each)),
    }, make("span", { class: `swatch c${each.place % 6}` }),
    ` ${each.place + 1}: ${(100 * each.share).toFixed(1)} % of the image${words[each.verdict] ?? ""}`));
    const none = found.length ? "" : "no region was found in this image";
    this.host.replaceChildren(make("div", { class: "head" }, make("h2", {}, image.name),
      make("span", { class: "faint", id: "where" }, `image ${this.at + 1} of ${this.all.length}, ${image.role}`)),
    make("div", { class: "beside" },
      make("div", { class: "picture" }, make("img", { src: `/large/${image.key}`, alt: image.name }), ...outlines),
      make("div", { class: "list" }, none, ...rows)));
  },

  async judge(places, verdict) {
    this.told = await ask(`/api/regions/${this.told.image.key}`, { places, verdict });
    this.draw();
    say({ accept: "accepted", reject: "rejected: no region any more in the next rounds" }[verdict] ?? "undone");
  },

  toggle(each) {
    return this.judge([each.place], each.verdict === "reject" ? "accept" : "reject");
  },

  turn(images) {
    const next = this.at + images;
    if (next < 0 || next >= this.all.length) return say(images > 0 ? "this is the last image" : "this is the first image");
    this.at = next;
    return tried(() => this.show());
  },

  keys(key) {
    if (!this.told) return false;
    const every = this.told.regions.map((each) => each.place);
    if (/^[1-9]$/.test(key) && this.told.regions[key - 1]) tried(() => this.toggle(this.told.regions[key - 1]));
    else if (key === "a") tried(() => this.judge(every, "accept"));
    else if (key === "r") tried(() => this.judge(every, "reject"));
    else if (key === "u") tried(() => this.judge(every, null));
    else if (key === "n" || key === "ArrowRight") this.turn(1);
    else if (key === "p" || key === "ArrowLeft") this.turn(-1);
    else return false;
    return true;
  },
};
