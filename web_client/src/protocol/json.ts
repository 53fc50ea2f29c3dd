/** JSON as PROTOCOL.md takes it: what `JSON.parse` takes, less repeated members, infinities and halves of surrogate pairs. */

/** The value of `text`, or a `SyntaxError` that says what is wrong. */
export function parseStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text, refuseUnspeakable);
  refuseRepeatedMembers(text);
  return value;
}

function refuseUnspeakable(name: string, value: unknown): unknown {
  if (!name.isWellFormed() || (typeof value === 'string' && !value.isWellFormed())) throw new SyntaxError('a string holds half a surrogate pair');
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new SyntaxError('a number is too large');
    return value + 0; // -0 is 0
  }
  return value;
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]:,]/g;

/** `JSON.parse` keeps the last of two members with one name, which another reader may see differently. */
function refuseRepeatedMembers(text: string): void {
  const open: (Set<string> | null)[] = []; // the names seen in each object that is open; null for an array
  let lastString = '';
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(null);
    else if (token === '}' || token === ']') open.pop();
    else if (token.startsWith('"')) lastString = token;
    else if (token === ':') {
      const name = JSON.parse(lastString) as string;
      const names = open.at(-1);
      if (names?.has(name)) throw new SyntaxError(`\`${name.slice(0, 40)}\` stands twice in one object`);
      names?.add(name);
    }
  }
}
