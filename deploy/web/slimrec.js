// A bundle in the browser: read, verified, asked its golden answers, then answering. docs/BUNDLE.md is the format.
"use strict";

const BLOCK = 512, MAX_FILES = 66, MAX_BYTES = 4 * 2 ** 30 + 2 ** 20 + BLOCK, MAX_MANIFEST = 2 ** 20;
const RUNTIMES = [1, 1];
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;

class Refused extends Error {}

function must(holds, what) {
  if (!holds) throw new Refused(what);
}

// The archive's files, name -> Uint8Array. Throws Refused where it is not canonical.
function unpack(archive) {
  const files = new Map(), folded = new Set();
  let at = 0, total = 0, previous = "";
  const zero = (from, to) => archive.subarray(from, to).every(byte => byte === 0);
  must(archive.length % BLOCK === 0 && archive.length >= 2 * BLOCK, "not a slimrec archive, or cut short");
  const end = archive.length - 2 * BLOCK;
  must(zero(end, archive.length), "the archive does not end in two zero blocks");
  while (at < end) {
    const head = archive.subarray(at, at + BLOCK);
    const name = latin1(head.subarray(0, 100)).replace(/\0+$/, "");
    must(NAME.test(name), "a file's name must be plain, without folders");
    const digits = latin1(head.subarray(124, 135));
    must(/^[0-7]{11}$/.test(digits), `${name}: its size is not written as it must be`);
    const size = parseInt(digits, 8), wanted = header(name, size);
    must(head.every((byte, place) => byte === wanted[place]), `${name}: its header is not in canonical form`);
    must(name > previous && !folded.has(name.toLowerCase()), `${name}: names must be sorted and used once`);
    const padded = Math.ceil(size / BLOCK) * BLOCK;
    at += BLOCK, total += size, previous = name, folded.add(name.toLowerCase());
    must(at + padded <= end, `${name}: cut short`);
    must(zero(at + size, at + padded), `${name}: its padding is not zero`);
    files.set(name, archive.subarray(at, at + size));
    at += padded;
    must(files.size <= MAX_FILES && total <= MAX_BYTES, "too many files, or too large");
  }
  return files;
}

function latin1(bytes) {
  return String.fromCharCode(...bytes);
}

function header(name, size) {
  const made = new Uint8Array(BLOCK);
  const put = (text, at) => { for (let i = 0; i < text.length; i++) made[at + i] = text.charCodeAt(i); };
  put(name, 0);
  put("0000644\0" + "0000000\0".repeat(2) + size.toString(8).padStart(11, "0") + "\0" + "0".repeat(11) + "\0", 100);
  put(" ".repeat(8) + "0", 148);
  put("ustar\x0000", 257);
  put(made.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ", 148);
  return made;
}

// The manifest's one encoding: members in the order of code points, no spaces.
function canonical(value) {
  if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const names = Object.keys(value).sort(byCodePoint);
  return "{" + names.map(name => JSON.stringify(name) + ":" + canonical(value[name])).join(",") + "}";
}

function byCodePoint(a, b) {
  const [x, y] = [Array.from(a, c => c.codePointAt(0)), Array.from(b, c => c.codePointAt(0))];
  for (let i = 0; i < Math.min(x.length, y.length); i++) if (x[i] !== y[i]) return x[i] - y[i];
  return x.length - y.length;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
}

// A bundle whose every byte agrees with its manifest, and the manifest with `key` (32 raw bytes) where one is pinned.
async function openBundle(archive, key) {
  const files = unpack(archive);
  const data = files.get("manifest.json"), signature = files.get("manifest.sig");
  must(data !== undefined && data.length <= MAX_MANIFEST, "no manifest.json in it");
  files.delete("manifest.json");
  files.delete("manifest.sig");
  must(signature === undefined || signature.length === 64, "manifest.sig: must be 64 bytes");
  if (key) {
    const pinned = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
    const own = signature !== undefined && await crypto.subtle.verify("Ed25519", pinned, signature, data);
    must(own, "manifest.sig: not the pinned key's signature of manifest.json");
  }
  let manifest;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
    manifest = JSON.parse(text);
    must(canonical(manifest) + "\n" === text, "manifest.json: not in canonical form");
  } catch (error) {
    throw error instanceof Refused ? error : new Refused(`manifest.json: ${error.message}`);
  }
  must(manifest.schema === 1, `manifest.json: schema: this page reads 1 (got ${manifest.schema})`);
  const { min, max } = manifest.runtime;
  must(min <= RUNTIMES[1] && max >= RUNTIMES[0], `manifest.json: runtime: this page is runtime 1 (got ${min} to ${max})`);
  const listed = Object.keys(manifest.files);
  must(listed.length === files.size && listed.every(name => files.has(name)), "other files than manifest.json lists");
  for (const name of listed) {
    const wanted = manifest.files[name];
    must(files.get(name).length === wanted.size, `${name}: must be ${wanted.size} bytes`);
    must(await sha256(files.get(name)) === wanted.sha256, `${name}: another SHA-256 than manifest.json says`);
  }
  return { manifest, files, digest: await sha256(data), signed: Boolean(key) };
}

const utf8 = bytes => new TextDecoder("utf-8").decode(bytes);

// `items.item`: ids and titles by row; row 0 is padding.
function catalogue(bytes) {
  const lines = utf8(bytes).replace(/\n$/, "").split("\n").map(line => line.replace(/\r$/, "").split("\t"));
  const names = lines[0].map(cell => cell.slice(0, cell.lastIndexOf(":")));
  const id = names.indexOf("item_id");
  const title = ["title", "movie_title", "name"].map(name => names.indexOf(name)).find(place => place >= 0) ?? id;
  const ids = ["", ...lines.slice(1).map(cells => cells[id])];
  return { ids, titles: ["", ...lines.slice(1).map(cells => cells[title])], rowOf: new Map(ids.map((name, row) => [name, row]).slice(1)) };
}

// Answers requests from an opened bundle with onnxruntime-web (`ort`).
class Recommender {
  static async load(ort, bundle, precision = bundle.manifest.model.default) {
    const model = bundle.manifest.model, found = new Recommender();
    Object.assign(found, { ort, bundle, precision, model });
    found.catalogue = catalogue(bundle.files.get("items.item"));
    must(found.catalogue.ids.length - 1 === model.n_items, `items.item: must have ${model.n_items} items`);
    found.popular = JSON.parse(utf8(bundle.files.get("popular.json")));
    found.golden = JSON.parse(utf8(bundle.files.get("golden.json")));
    const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
    found.session = await ort.InferenceSession.create(bundle.files.get(model.precisions[precision]), options);
    return found;
  }

  // The k best items of a history (ids, oldest first), never one of its own or of `exclude`. Unknown ids are skipped and named.
  async recommend(history, k = 10, exclude = []) {
    const { ids, titles, rowOf } = this.catalogue;
    const rows = history.filter(id => rowOf.has(id)).map(id => rowOf.get(id));
    const leftOut = [...rows, ...exclude.filter(id => rowOf.has(id)).map(id => rowOf.get(id))];
    const unknown = [...new Set([...history, ...exclude].filter(id => !rowOf.has(id)))];
    const named = (row, score) => ({ id: ids[row], title: titles[row], score });
    k = Math.min(k, this.model.n_items);
    if (!rows.length) {
      const items = this.popular.filter(row => !leftOut.includes(row)).slice(0, k).map(row => named(row, null));
      return { items, unknown, source: "popularity" };
    }
    const recent = rows.slice(-this.model.max_history);
    const found = await this.session.run({ history: this.rows([recent]), exclude: this.rows([leftOut]), k: this.counts([k]) });
    const scores = Array.from(found.scores.data), best = Array.from(found.rows.data, Number);
    const items = best.map((row, place) => named(row, scores[place])).filter(item => item.score !== -Infinity);
    return { items, unknown, source: "model" };
  }

  rows(lists) {
    return new this.ort.Tensor("int64", BigInt64Array.from(lists.flat(), BigInt), [lists.length, lists[0].length]);
  }

  counts(values) {
    return new this.ort.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
  }

  // Asks every golden case of this precision; throws Refused at the first answer that differs. Returns the answers.
  async selfTest() {
    const answers = [];
    for (const [number, { history, k, answers: recorded }] of this.golden.cases.entries()) {
      const { items } = await this.recommend(history, k);
      const wanted = recorded[this.precision];
      must(wanted, `golden.json: cases.${number}: no recorded answer for ${this.precision}`);
      const difference = differs(wanted, items, this.golden.tolerance);
      must(!difference, `golden.json: cases.${number}: ${this.precision}: ${difference}; this browser does not reproduce the bundle's answers`);
      answers.push({ items: items.map(item => item.id), scores: items.map(item => item.score) });
    }
    return answers;
  }
}

// How an answer differs from the recorded one, or null: scores within the tolerance at every place, items too but for ties.
function differs(wanted, items, tolerance) {
  if (items.length !== wanted.items.length) return `must be ${wanted.items.length} items (got ${items.length})`;
  if (new Set(items.map(item => item.id)).size !== items.length) return "an item is answered twice";
  const recorded = new Map(wanted.items.map((id, place) => [id, wanted.scores[place]]));
  const last = wanted.scores.at(-1);
  for (const [place, { id, score }] of items.entries()) {
    const due = wanted.scores[place];
    if (!(Math.abs(score - due) <= tolerance)) return `place ${place + 1} must score ${due} (got ${score})`;
    if (id !== wanted.items[place] && !(Math.abs((recorded.get(id) ?? last) - due) <= tolerance)) {
      return `place ${place + 1} must be item ${wanted.items[place]} (got ${id})`;
    }
  }
  return null;
}
