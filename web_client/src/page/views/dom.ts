/** The few DOM helpers the views share. Text only ever goes in as text, never as markup. */

type Child = Node | string;

export function element<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, ...children: Child[]): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className !== '') node.className = className;
  node.append(...children);
  return node;
}

export function button(className: string, label: string, press: () => void): HTMLButtonElement {
  const node = element('button', className, label);
  node.type = 'button';
  node.addEventListener('click', press);
  return node;
}

/** An element of index.html. Throws when page and script do not fit together. */
export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const node = document.getElementById(id);
  if (!(node instanceof type)) throw new Error(`index.html has no ${type.name} with the id ${id}.`);
  return node;
}

/** Writes only what changed: the same text again would make a live region speak again. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}
