// The site's images with their labels, to confirm or correct; and those to label next.
import { ask, make, say, tried } from "./ask.js";
import { Gallery, KEYS } from "./gallery.js";

const LOOK_MS = 1000;

class Labels {
  constructor(title, classes) {
    this.title = title;
    this.classes = classes;
    const digits = classes.slice(0, 9).map((name, place) => [String(place + 1), name]);
    this.legend = [...digits, ["0", "none of these"], ["Enter", "the label is right"], ["u", "undo"], ...KEYS];
  }

  async label(label) {
    const image = this.gallery.current;
    if (!image) return;
    const told = await ask(`/api/images/${image.key}/label`, { label });
    this.gallery.change(told);
    say(label === null ? `${image.name}: undone` : `${image.name}: ${label || "none of the classes"}`);
    if (label !== null) this.gallery.focus(this.gallery.at + 1);
  }

  keys(key) {
    if (!this.gallery) return false;
    const image = this.gallery.current;
    if (key === "0") tried(() => this.label(""));
    else if (/^[1-9]$/.test(key) && Number(key) <= this.classes.length) tried(() => this.label(this.classes[key - 1]));
    else if (key === "Enter" && image) tried(() => this.confirm(image));
    else if (key === "u") tried(() => this.label(null));
    else return this.gallery.keys(key);
    return true;
  }

  async confirm(image) {
    if (!this.classes.includes(image.label)) return say("it has no label of this study: give one by its number");
    return this.label(image.label);
  }
}

export class AllLabels extends Labels {
  async load(host) {
    this.host = host;
    this.choices = await ask("/api/labels");
    await this.show("");
  }

  async show(of) {
    this.gallery = new Gallery(`/api/images?label=${encodeURIComponent(of)}&`);
    const list = make("nav", { class: "list", "aria-label": "Labels" }, ...this.choices.map((each) =>
      make("button", {
        "aria-current": each.of === of ? "true" : null, onclick: () => tried(() => this.show(each.of)),
      }, `${each.of || "all"} (${each.images})`)));
    this.host.replaceChildren(make("div", { class: "columns" }, list, make("section", {},
      make("div", { class: "head" }, make("h2", {}, of || "All images"), this.gallery.where),
      this.gallery.element)));
    await this.gallery.load(0);
  }
}

export class Next extends Labels {
  async load(host) {
    this.gallery = null;
    const words = make("p", {});
    host.replaceChildren(words);
    let told;
    while ((told = await ask("/api/suggestions")).working) {
      if (!host.contains(words)) return; // another view is open
      words.textContent = `looking at the images: ${told.seen} of ${told.of}`;
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
    if (told.error) throw new Error(told.error);
    if (!host.contains(words)) return;
    this.gallery = new Gallery("");
    host.replaceChildren(make("div", { class: "head" }, make("h2", {}, "What to label next"),
      make("span", { class: "faint" }, "typical images of kinds that have no label yet, the first the most "
        + "useful; this list stays here")), this.gallery.element);
    this.gallery.fill(told);
  }
}
