// @vitest-environment jsdom
import { describe, expect, it } from 'vitest';
import { BlockCutter } from '../../src/page/markdown/blocks';
import { renderMarkdown } from '../../src/page/markdown/html';
import { createMarkdown } from '../../src/page/markdown/view';
import { HOSTILE } from './hostile';

function html(source: string): string {
  const box = document.createElement('div');
  box.append(...renderMarkdown(source));
  return box.innerHTML;
}

/** The node after the text has arrived in pieces of `step` characters. */
function streamed(source: string, step: number): HTMLElement {
  const view = createMarkdown(() => 0);
  for (let end = step; end < source.length; end += step) view.update(source.slice(0, end), false);
  view.update(source, true);
  return view.node;
}

/** Everything in the tree that could run, load, or change how the page looks. */
function dangers(root: ParentNode): string[] {
  const found: string[] = [];
  for (const node of root.querySelectorAll('*')) {
    const tag = node.tagName.toLowerCase();
    if (/^(script|style|iframe|img|image|svg|math|object|embed|link|meta|base|form|input|audio|video|source|template)$/.test(tag)) found.push(tag);
    for (const { name, value } of node.attributes) {
      if (/^on|^style$|^src|^id$|^name$|^formaction$|^xlink/.test(name)) found.push(`${tag} ${name}`);
      if (name === 'href' && !/^(https?:\/\/|mailto:)/i.test(value)) found.push(`${tag} href=${value}`);
    }
  }
  return found;
}

const RICH = [
  '# Title',
  'A *paragraph* with `code`,\nof two lines.',
  '- one\n- two\n  - deeper\n\n- loose',
  '3. third\n4. fourth',
  '```python\nprint("<b>")\n\n# not a heading\n```',
  '> quoted\n> more',
  '| a | b |\n|---|--:|\n| 1 | 2 |',
  'Heading\n===',
  '---',
  '*a*\n*b*',
  'Last words.',
].join('\n\n');

describe('Markdown', () => {
  it('leaves plain words and their paragraphs as they are', () => {
    const plain = 'One line,\nand another.\n\nA second paragraph.\n';
    expect(streamed(plain, 5).textContent).toBe(plain);
    expect(streamed(plain, 5).querySelectorAll('p')).toHaveLength(2);
  });

  it('renders emphasis, lists, tables and headings below the one of the page', () => {
    const page = html(RICH);
    for (const piece of ['<h2 dir="auto">Title</h2>', '<em>paragraph</em>', '<li dir="auto">deeper</li>', 'align="right"', 'start="3"', '<blockquote']) expect(page).toContain(piece);
    expect(page).not.toContain('<h1');
  });

  it('gives code its language, a copy button, and its text untouched', () => {
    const block = streamed(RICH, 3).querySelector('.code');
    expect(block?.querySelector('.language')?.textContent).toBe('python');
    expect(block?.querySelector('button')?.textContent).toBe('Copy code');
    expect(block?.querySelector('pre')?.textContent).toBe('print("<b>")\n\n# not a heading\n');
  });

  it('opens links elsewhere, without telling where from', () => {
    const [link] = [...streamed('[here](https://example.org/a?b=1&c=2)', 2).querySelectorAll('a')];
    expect(link).toMatchObject({ href: 'https://example.org/a?b=1&c=2', target: '_blank', rel: 'noopener noreferrer nofollow' });
  });

  it('follows a link that is defined in another block, once all is there', () => {
    expect(streamed('See [this][1].\n\nMore.\n\nMore.\n\n[1]: https://example.org/', 4).querySelector('a')?.href).toBe('https://example.org/');
  });

  it('shows a picture as a link, and fetches nothing', () => {
    const node = streamed('![a cat](https://example.org/cat.png)', 5);
    expect(node.querySelector('img')).toBeNull();
    expect(node.querySelector('a')?.textContent).toBe('a cat');
  });

  it.each([11, 60])('is the same in pieces of %i as at once', (step) => {
    expect(streamed(RICH, step).innerHTML).toBe(streamed(RICH, RICH.length).innerHTML);
  });

  it('keeps the nodes that do not change', () => {
    const view = createMarkdown(() => 0);
    view.update('First.\n\nSecond', false);
    const first = view.node.querySelector('p');
    view.update('First.\n\nSecond is *longer*', false);
    expect(view.node.querySelector('p')).toBe(first);
    expect(view.node.textContent).toBe('First.\n\nSecond is longer');
  });

  it('takes a text that is not the continuation of the former', () => {
    const view = createMarkdown(() => 0);
    view.update('One.\n\nTwo.\n\nThree.\n\nFour<end', false);
    view.update('One.\n\nTwo.', true);
    expect(view.node.textContent).toBe('One.\n\nTwo.');
  });

  it('shows at the end what a pause had kept back', () => {
    let clock = 0;
    const view = createMarkdown(() => (clock += 10));
    view.update('a', false);
    view.update('ab', false);
    view.update('abc', true);
    expect(view.node.textContent).toBe('abc');
  });
});

describe('a long answer', () => {
  it('costs the parsing of its last blocks at each step, not of the whole', () => {
    const paragraph = 'Some words of an answer that goes on and on. '.repeat(4);
    const text = Array.from({ length: 400 }, () => paragraph).join('\n\n');
    const cutter = new BlockCutter();
    for (let end = 90; end < text.length; end += 90) cutter.cut(text.slice(0, end));
    const steps = text.length / 90;
    expect(cutter.parsed / steps).toBeLessThan(4 * paragraph.length);
  });

  it('is cut without losing a character', () => {
    const cutter = new BlockCutter();
    let settled = '';
    for (let end = 1; end <= RICH.length; end += 1) {
      const cut = cutter.cut(RICH.slice(0, end));
      settled += cut.settled.join('');
      expect(settled + cut.open.join('')).toBe(RICH.slice(0, end));
    }
    expect(settled.length).toBeGreaterThan(RICH.length / 2);
  });
});

describe('hostile text', () => {
  it.each(HOSTILE)('is inert: %s', (source) => {
    for (const step of [19, source.length]) expect(dangers(streamed(source, step))).toEqual([]);
  });

  it('is shown as the text it is', () => {
    expect(streamed('<b onclick="x()">bold</b>', 4).textContent).toBe('<b onclick="x()">bold</b>');
  });

  it('is not hidden by a class or an id of the page', () => {
    const node = streamed('```settings hidden" onclick="x\nx\n```\n\n<p id="composer" class="notices">x</p>', 3);
    expect(node.querySelector('[id], .notices, .settings')).toBeNull();
  });

  it.each(['>', '- ', '[', '*a ', '![a](', '**_'])('that nests %j without end is shown', (opening) => {
    const deep = `${opening.repeat(1000)} deep`;
    expect(streamed(deep, deep.length).textContent).not.toBe('');
  });
});
