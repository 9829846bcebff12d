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

const decide = (article, number) => {
  const action = article.querySelector("input[type=radio]:checked")?.value;
  if (!action) return null;
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

const update = () => {
  for (const article of articles) {
    article.querySelector(".new").hidden = article.querySelector("select").value !== "-1";
  }
  const decided = decisions().length;
  document.getElementById("status").textContent = `${decided} of ${articles.length} decided`;
  document.getElementById("save").disabled = !decided;
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
