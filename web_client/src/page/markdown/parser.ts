/** The Markdown parser as this page wants it: markup in the source is text, pictures are links, and only safe links are links. No DOM. */
import MarkdownIt from 'markdown-it';

/** Links leave the page by these alone; none of them runs script, and a relative one would lead into our own server. */
export const LINKS = /^(?:https?:\/\/|mailto:)/i;
const DEEPEST_HEADING = 6;

export const parser: InstanceType<typeof MarkdownIt> = createParser();

/** Finds blocks and does not look into them. */
export const blockParser: InstanceType<typeof MarkdownIt> = createParser();
blockParser.core.ruler.enableOnly(['normalize', 'block']);

function createParser(): InstanceType<typeof MarkdownIt> {
  const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false });
  markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
  markdown.validateLink = (url) => LINKS.test(url);
  const { rules } = markdown.renderer;
  // Nothing is fetched because a model said so: a picture is a link to it.
  rules.image = (tokens, index) => {
    const token = tokens[index];
    const address = String(token?.attrGet('src') ?? '');
    const label = token?.content === '' ? address : (token?.content ?? '');
    const { escapeHtml } = markdown.utils;
    return `<a href="${escapeHtml(address)}">${escapeHtml(label)}</a>`;
  };
  // The page has its own h1.
  rules.heading_open = rules.heading_close = (tokens, index, options, _env, renderer) => {
    const token = tokens[index];
    if (token === undefined) return '';
    // Written as `===` and `---`, or as so many signs.
    const depth = token.markup === '=' ? 1 : token.markup === '-' ? 2 : token.markup.length;
    token.tag = `h${String(Math.min(depth + 1, DEEPEST_HEADING))}`;
    return renderer.renderToken(tokens, index, options);
  };
  // The policy of the page allows no style in markup.
  rules.th_open = rules.td_open = (tokens, index, options, _env, renderer) => {
    const token = tokens[index];
    const align = /^text-align:(\w+)$/.exec(String(token?.attrGet('style') ?? ''))?.[1];
    if (token !== undefined) token.attrs = align === undefined ? null : [['align', align]];
    return renderer.renderToken(tokens, index, options);
  };
  return markdown;
}
