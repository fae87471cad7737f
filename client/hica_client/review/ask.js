// Asks the server, and makes elements. Whatever comes from outside becomes text, never HTML.

export async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("hica-client review has ended: start it again, and open the new address");
  }
  if (answer.headers.get("content-type") !== "application/json") throw new Error(await answer.text());
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

export function make(tag, traits = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((each) => each !== null));
  return element;
}

export function say(words, wrong = false) {
  const said = document.getElementById("said");
  said.textContent = words;
  said.classList.toggle("wrong", wrong);
}

// Does something, and says what kept it from being done.
export async function tried(work) {
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  }
}

export const table = (names, rows) => make("table", {},
  make("thead", {}, make("tr", {}, ...names.map((name) => make("th", {}, name)))),
  make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))))));
