/** Makes the children of a node what they shall be, and touches only those that differ. */

export function patchChildren(parent: Node, from: number, wanted: readonly Node[]): void {
  wanted.forEach((want, index) => {
    const have = parent.childNodes[from + index];
    if (have === undefined) parent.appendChild(want);
    else if (!have.isEqualNode(want)) patch(have, want);
  });
  while (parent.childNodes.length > from + wanted.length) parent.lastChild?.remove();
}

function patch(have: ChildNode, want: Node): void {
  if (have instanceof Text && want instanceof Text) {
    if (want.data.startsWith(have.data)) have.appendData(want.data.slice(have.data.length));
    else have.data = want.data;
  } else if (have instanceof Element && want instanceof Element && have.cloneNode(false).isEqualNode(want.cloneNode(false))) {
    patchChildren(have, 0, [...want.childNodes]);
  } else {
    have.replaceWith(want);
  }
}
