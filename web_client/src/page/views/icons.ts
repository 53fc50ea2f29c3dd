/** Icons of buttons that are made by script, drawn as those in index.html. */
const SVG = 'http://www.w3.org/2000/svg';

const PATHS = {
  edit: 'M4 16l.8-3.2L13 4.6a1.4 1.4 0 0 1 2 0l.4.4a1.4 1.4 0 0 1 0 2L7.2 15.2 4 16Z',
  again: 'M15.5 8A6 6 0 1 0 16 11.5M16 4v4h-4',
  previous: 'm12 5-5 5 5 5',
  next: 'm8 5 5 5-5 5',
  more: 'M4.5 9.5h1v1h-1zM9.5 9.5h1v1h-1zM14.5 9.5h1v1h-1z',
} as const;

export function iconButton(icon: keyof typeof PATHS, label: string, press: () => void): HTMLButtonElement {
  const node = document.createElement('button');
  node.type = 'button';
  node.className = 'button small quiet icon-only';
  node.setAttribute('aria-label', label);
  node.title = label;
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[icon]);
  svg.append(path);
  node.append(svg);
  node.addEventListener('click', press);
  return node;
}
