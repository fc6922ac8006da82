// The lens's search language: what lens_search.py says, here for the page. Nothing is evaluated but this grammar.
const SEARCH_FLAGS = ["base-favored", "special", "partial", "given"];
const SEARCH_SAME = { "=": "==", "≥": ">=", "≤": "<=", "≠": "!=" };
const SEARCH_COMPARE = {
  ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
  "==": (a, b) => a === b, "!=": (a, b) => a !== b && !Number.isNaN(a) && !Number.isNaN(b),
};
const SEARCH_LEXEME =
  /\s*(?:(?<number>[-−]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)|(?<string>"[^"]*"|'[^']*'|“[^”]*”)|(?<op>>=|<=|!=|==|[><=≥≤≠])|(?<paren>[()])|(?<word>[a-zA-Z][a-zA-Z-]*))/y;

const SEARCH_MOST_NESTED = 40;

class SearchError extends Error {}

function searchLexemes(expression) {
  const found = [];
  let at = 0;
  while (expression.slice(at).trim()) {
    SEARCH_LEXEME.lastIndex = at;
    const match = SEARCH_LEXEME.exec(expression);
    if (!match) {
      const rest = expression.slice(at), start = at + rest.length - rest.trimStart().length;
      const sign = String.fromCodePoint(expression.codePointAt(start));
      throw new SearchError(`the search cannot be read at character ${[...expression.slice(0, start)].length + 1}: “${sign}” means nothing here`);
    }
    const [kind, text] = Object.entries(match.groups).find(([, value]) => value !== undefined);
    const start = match.index + match[0].length - text.length;
    found.push({ kind, text: kind === "word" ? text.toLowerCase() : text, at: [...expression.slice(0, start)].length + 1 });
    at = SEARCH_LEXEME.lastIndex;
  }
  if (found.filter(({ text }) => text === "(" || text === "not").length > SEARCH_MOST_NESTED) {
    throw new SearchError(`the search has more than ${SEARCH_MOST_NESTED} brackets and “not”s: make it simpler`);
  }
  found.push({ kind: "end", text: "", at: [...expression].length + 1 });
  return found;
}

/** Read an expression into a tree, as lens_search.py names its nodes; `words` maps what can be compared to its name. Throws SearchError. */
function readSearch(expression, words) {
  const lexemes = searchLexemes(expression);
  let at = 0;
  const take = (kind, ...wanted) => {
    const now = lexemes[at];
    if (now.kind !== kind || (wanted.length && !wanted.includes(now.text))) return null;
    at += 1;
    return now.text;
  };
  const expected = (what) => {
    const now = lexemes[at], found = now.kind === "end" ? "the end" : `“${now.text}”`;
    throw new SearchError(`the search cannot be read at character ${now.at}: expected ${what}, found ${found}`);
  };
  const side = (what) => {
    const number = take("number");
    if (number !== null) return ["number", Number(number.replace("−", "-"))];
    if (lexemes[at].kind === "word") {
      const one = lexemes[at].text, two = `${one} ${lexemes[at + 1].text}`;
      for (const [phrase, size] of [[two, 2], [one, 1]]) {
        if (!Object.hasOwn(words, phrase)) continue;
        at += size;
        return ["field", words[phrase]];
      }
    }
    return expected(what);
  };
  const comparison = () => {
    let left = side("a value such as “base p”, “shift” or “kl”, or a text in quotes"), node = null, op;
    while ((op = take("op")) !== null) {
      const right = side("a number or a value such as “base p”");
      const step = ["compare", SEARCH_SAME[op] ?? op, left, right];
      node = node ? ["and", node, step] : step;
      left = right;
    }
    return node ?? expected("a comparison (> >= < <= = !=)");
  };
  const single = () => {
    if (take("paren", "(") !== null) {
      const node = either();
      if (take("paren", ")") === null) expected("“)”");
      return node;
    }
    let quoted = take("string");
    if (quoted !== null) return ["contains", quoted.slice(1, -1)];
    if (take("word", "text") !== null) {
      const how = take("word", "contains", "is") ?? expected("“contains” or “is”");
      quoted = take("string") ?? expected("a text in quotes");
      return [how, quoted.slice(1, -1)];
    }
    const flag = take("word", ...SEARCH_FLAGS);
    return flag !== null ? ["flag", flag] : comparison();
  };
  const negated = () => (take("word", "not") !== null ? ["not", negated()] : single());
  const both = () => {
    let node = negated();
    while (take("word", "and") !== null) node = ["and", node, negated()];
    return node;
  };
  const either = () => {
    let node = both();
    while (take("word", "or") !== null) node = ["or", node, both()];
    return node;
  };
  const node = either();
  if (lexemes[at].kind !== "end") expected("“and”, “or” or the end");
  return node;
}

/** Return 1 for each token that matches. `values(name)` and `flags(name)` are arrays, `texts` what is shown. */
function runSearch(node, values, flags, texts) {
  const [kind, a, b, c] = node;
  const found = new Uint8Array(texts.length);
  if (kind === "and" || kind === "or") {
    const [x, y] = [runSearch(a, values, flags, texts), runSearch(b, values, flags, texts)];
    return found.map((_, i) => (kind === "and" ? x[i] & y[i] : x[i] | y[i]));
  }
  if (kind === "not") return runSearch(a, values, flags, texts).map((x) => 1 - x);
  if (kind === "flag") return found.map((_, i) => (flags(a)[i] ? 1 : 0));
  if (kind === "is") return found.map((_, i) => (texts[i].trim().toLowerCase() === a.trim().toLowerCase() ? 1 : 0));
  if (kind === "contains") return containing(texts, a.toLowerCase());
  const sideOf = ([what, x]) => (what === "number" ? () => x : ((array) => (i) => array[i])(values(x)));
  const [left, right, compare] = [sideOf(b), sideOf(c), SEARCH_COMPARE[a]];
  return found.map((_, i) => (compare(left(i), right(i)) ? 1 : 0));
}

/** Mark every token that a piece of running text runs over. */
function containing(texts, wanted) {
  const found = new Uint8Array(texts.length);
  if (!wanted) return found;
  const lowered = texts.map((t) => t.toLowerCase()), whole = lowered.join("");
  const ends = [];
  let length = 0;
  for (const text of lowered) ends.push((length += text.length));
  let first = 0;
  for (let at = whole.indexOf(wanted); at >= 0; at = whole.indexOf(wanted, at + 1)) {
    while (ends[first] <= at) first += 1;
    for (let i = first; i < texts.length && ends[i] - lowered[i].length < at + wanted.length; i += 1) if (ends[i] > at) found[i] = 1;
  }
  return found;
}
