// A page of images, of which one has the focus; arrows move it. One page is in the document.
import { ask, make, say, tried } from "./ask.js";

const words = (image) => {
  const own = image.label || "no label";
  if (image.given === null) return own;
  const given = image.given || "none of the classes";
  return given === own ? `${own} ✓` : `${own} → ${given}`;
};

export class Gallery {
  constructor(address, captions = true) {
    this.address = address; // of a page, without its number
    this.captions = captions;
    this.page = 0;
    this.pages = 1;
    this.images = [];
    this.at = 0;
    this.element = make("div", { class: "gallery" });
    this.where = make("span", { class: "faint", id: "where" });
  }

  async load(page) {
    this.fill(await ask(`${this.address}page=${page}`));
    this.warm();
  }

  fill(told) {
    Object.assign(this, { page: told.page, pages: told.pages, images: told.images, at: 0 });
    this.element.replaceChildren(...this.images.map((_, place) => this.tile(place)));
    this.where.textContent = `page ${this.page + 1} of ${Math.max(this.pages, 1)}`;
    this.element.firstChild?.focus();
  }

  tile(place) {
    const image = this.images[place];
    const picture = make("img", {
      src: `/small/${image.key}`, alt: image.name, loading: "lazy", decoding: "async",
    });
    const marks = [image.given !== null && "given", image.rejected && "rejected"].filter(Boolean);
    const caption = make("figcaption", {},
      this.captions ? make("span", { class: "label" }, words(image)) : "",
      make("span", { class: "name", title: image.name }, image.why || image.name.split("/").at(-1)));
    return make("figure", {
      class: ["tile", ...marks].join(" "), tabindex: "0", "data-key": image.key,
      onfocus: () => { this.at = place; }, onclick: (event) => event.currentTarget.focus(),
    }, picture, caption);
  }

  get current() {
    return this.images[this.at];
  }

  change(image) {
    const place = this.images.findIndex((each) => each.key === image.key);
    if (place < 0) return;
    this.images[place] = { ...this.images[place], ...image };
    const here = this.element.children[place];
    const hadFocus = here === document.activeElement;
    here.replaceWith(this.tile(place));
    if (hadFocus) this.element.children[place].focus();
  }

  focus(place) {
    this.element.children[Math.min(Math.max(place, 0), this.images.length - 1)]?.focus();
  }

  turn(pages) {
    const page = this.page + pages;
    if (page < 0 || page >= this.pages) return say(pages > 0 ? "this is the last page" : "this is the first page");
    return tried(() => this.load(page));
  }

  columns() {
    return getComputedStyle(this.element).gridTemplateColumns.split(" ").length;
  }

  // The next page's pictures are drawn while this one is looked at.
  async warm() {
    if (this.page + 1 >= this.pages) return;
    try {
      const next = await ask(`${this.address}page=${this.page + 1}`);
      for (const image of next.images) await fetch(`/small/${image.key}`);
    } catch { /* it is said once somebody looks at it */ }
  }

  async reject() {
    const image = this.current;
    if (!image) return;
    const verdict = image.rejected ? null : "reject";
    this.change(await ask(`/api/images/${image.key}`, { verdict }));
    say(verdict ? `nothing is learnt from ${image.name}` : `${image.name} is taken back in`);
  }

  // Whether a key was for the gallery.
  keys(key) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns(), ArrowDown: this.columns() };
    if (key in steps) this.focus(this.at + steps[key]);
    else if (key === "n" || key === "PageDown") this.turn(1);
    else if (key === "p" || key === "PageUp") this.turn(-1);
    else if (key === "x") tried(() => this.reject());
    else return false;
    return true;
  }
}

export const KEYS = [["←↑↓→", "move"], ["n p", "page"], ["x", "leave this image out"]];
