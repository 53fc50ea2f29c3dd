/**
 * Markdown to a piece of the document. The source is hostile: a model repeats what it has read, and conversations are imported.
 * The parser lets no markup through, and what it makes passes DOMPurify with a short list of what may stay.
 */
import DOMPurify from 'dompurify';
import { codeBlock, tableBox } from './furniture';
import { LINKS, parser } from './parser';

/** Links that were defined in blocks before, for those after them. */
export type Definitions = Record<string, unknown>;

// prettier-ignore
const TAGS = ['a', 'blockquote', 'br', 'code', 'em', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li', 'ol', 'p', 'pre', 's', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul'];
const ATTRIBUTES = ['align', 'class', 'href', 'start'];
const LANGUAGE_CLASS = /^language-[\w+#.-]{1,40}$/;
/** Each of these takes its direction from its own first letter. */
const DIRECTED = 'p, h2, h3, h4, h5, h6, ul, ol, li, blockquote, td, th';

/** The nodes of one or several blocks. */
export function renderMarkdown(source: string, definitions: Definitions = {}): readonly ChildNode[] {
  const fragment = DOMPurify.sanitize(parser.render(source, definitions).trimEnd(), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: LINKS,
    ADD_URI_SAFE_ATTR: ['align', 'start'],
    RETURN_DOM_FRAGMENT: true,
  });
  furnish(fragment);
  keepSpace(fragment, source);
  return [...fragment.childNodes];
}

function furnish(fragment: DocumentFragment): void {
  for (const node of fragment.querySelectorAll<HTMLElement>(DIRECTED)) node.dir = 'auto';
  for (const node of fragment.querySelectorAll('[class]')) {
    if (node.tagName !== 'CODE' || !LANGUAGE_CLASS.test(node.className)) node.removeAttribute('class');
  }
  for (const link of fragment.querySelectorAll('a')) {
    if (!link.hasAttribute('href')) continue;
    link.target = '_blank';
    link.rel = 'noopener noreferrer nofollow';
    // Where it leads, whatever its words say.
    link.title = link.href;
  }
  for (const pre of fragment.querySelectorAll('pre')) pre.replaceWith(codeBlock(pre));
  for (const table of fragment.querySelectorAll('table')) table.replaceWith(tableBox(table));
}

/** The white space round the blocks stays in the document, so that what is selected and copied has its paragraphs. */
function keepSpace(fragment: DocumentFragment, source: string): void {
  const [before] = /^\s*/.exec(source) ?? [''];
  const [after] = /\s*$/.exec(source.slice(before.length)) ?? [''];
  if (before !== '') fragment.prepend(before);
  if (after !== '') fragment.append(after);
}
