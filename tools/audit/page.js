const data = JSON.parse(document.getElementById("data").textContent);
const articles = [...document.querySelectorAll("article")];
const storage = "audit " + data.key;
const FIELDS = ["clip", "action", "label", "sha256", "note"];

// What a spreadsheet would run as a formula gets an apostrophe, as in the tables of the stages.
const quote = (text) => `"${(/^'*[=+\-@\t\r]/.test(text) ? "'" + text : text).replaceAll('"', '""')}"`;

// What all spellings of a label share, as stages/common/spelling.py has it.
const fold = (text) => text.replace(/[\p{Cf}\ufe0e\ufe0f]/gu, "").normalize("NFKC").toLowerCase().normalize("NFKC")
  .trim().replace(/\s+/g, " ");

const findLabel = (typed) => data.labels.includes(typed) || data.keep
  ? typed : data.labels.find((label) => fold(label) === fold(typed)) ?? typed;

const chosen = (article) => article.querySelector("input[type=radio]:checked").value;

// The line of the table for a clip, or null if there is no decision yet.
const decide = (article, number) => {
  const action = chosen(article);
  if (action === "undecided") return null;
  const { clip, sha256 } = data.suspects[number];
  const index = Number(article.querySelector("select").value);
  const typed = findLabel(article.querySelector(".new").value.trim());
  const label = action !== "change" ? "" : index >= 0 ? data.labels[index] : index === -1 ? typed : "";
  if (action === "change" && !label) return null;
  const isNew = action === "change" && !data.labels.includes(label);
  return { clip, action: isNew ? "new" : action, label, sha256, note: article.querySelector(".note").value.trim() };
};

const decisions = () => articles.map(decide).filter(Boolean);

const remember = () => {
  const values = articles.map((article) => [...article.querySelectorAll("input, select")].map(
    (field) => (field.type === "radio" ? field.checked : field.value)));
  try { localStorage.setItem(storage, JSON.stringify(values)); } catch { /* the browser may not allow it */ }
};

const STATES = { undecided: "", keep: "keep", change: "change", new: "new label", drop: "drop", incomplete: "choose a label" };

const update = () => {
  for (const [number, article] of articles.entries()) {
    article.querySelector(".new").hidden = article.querySelector("select").value !== "-1";
    const state = decide(article, number)?.action ?? (chosen(article) === "change" ? "incomplete" : "undecided");
    article.dataset.state = state;
    article.querySelector("output").textContent = STATES[state];
  }
  const decided = decisions().length;
  document.getElementById("status").textContent = `${decided} of ${articles.length} decided`;
  document.getElementById("save").disabled = !decided;
  document.getElementById("next").disabled = decided === articles.length;
};

try {
  const values = JSON.parse(localStorage.getItem(storage)) ?? [];
  values.forEach((row, number) => [...articles[number].querySelectorAll("input, select")].forEach((field, i) => {
    if (field.type === "radio") field.checked = row[i];
    else field.value = row[i];
  }));
} catch { /* nothing was kept */ }

articles.forEach((article) => article.addEventListener("input", (event) => {
  if (event.target.matches("select, .new")) article.querySelector("input[value=change]").checked = true;
  remember();
  update();
}));

let here = -1; // number of the clip that last had the focus: a click on the button takes the focus away
document.addEventListener("focusin", (event) => {
  const article = event.target.closest("article");
  if (article) here = articles.indexOf(article);
});

const goToNext = () => {
  const open = (article) => ["undecided", "incomplete"].includes(article.dataset.state);
  (articles.slice(here + 1).find(open) ?? articles.find(open))?.focus();
};

document.getElementById("next").addEventListener("click", goToNext);

const CHOICES = { k: "keep", d: "drop", c: "change", u: "undecided" };

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("select, input:not([type=radio])");
  if (isTyping || event.ctrlKey || event.altKey || event.metaKey) return;
  const article = event.target.closest("article");
  if (event.key === "n") goToNext();
  else if (article && event.key === "p") {
    const audio = article.querySelector("audio");
    if (audio.paused) audio.play(); else audio.pause();
  } else if (article && CHOICES[event.key]) article.querySelector(`input[value=${CHOICES[event.key]}]`).click();
});

// One clip plays at a time. The event does not bubble.
document.addEventListener("play", (event) => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
}, true);

document.getElementById("save").addEventListener("click", () => {
  const rows = [...data.decided, ...decisions()];
  const lines = [FIELDS.join(","), ...rows.map((row) => FIELDS.map((field) => quote(row[field])).join(","))];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

update();
