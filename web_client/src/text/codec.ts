/** Text to ids and back, with the model's own tokenizer and chat template. */
import { Template } from '@huggingface/jinja';
import { Tokenizer } from '@huggingface/tokenizers';
import type { ChatMessage } from '../api';
import { TextError } from '../protocol/errors';

export interface SpecialTokens {
  readonly bos_token: string | null;
  readonly eos_token: string | null;
}

export class TextCodec {
  private readonly tokenizer: Tokenizer;
  private readonly template: Template;
  private readonly special: Record<string, string>;

  constructor(tokenizerJson: string, chatTemplate: string, special: SpecialTokens) {
    try {
      this.tokenizer = new Tokenizer(JSON.parse(tokenizerJson) as object, {});
      this.template = new Template(chatTemplate);
    } catch (error) {
      throw new TextError('tokenizer_unreadable', `The bundle's tokenizer or chat template cannot be read (${reason(error)}); its operator must export it again.`);
    }
    this.special = { bos_token: special.bos_token ?? '', eos_token: special.eos_token ?? '' };
  }

  /** Ids of a conversation whose next message is the assistant's. */
  encodeChat(messages: readonly ChatMessage[]): number[] {
    let text: string;
    try {
      text = this.template.render({ messages, add_generation_prompt: true, ...this.special });
    } catch (error) {
      throw new TextError('template_refused', `The model's chat template refuses this conversation (${reason(error)}); start a new chat.`);
    }
    return this.encode(text);
  }

  /** Nothing is added that the text does not hold: the template has said what stands at the start. */
  encode(text: string): number[] {
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** Special tokens are left out. */
  decode(ids: readonly number[]): string {
    return ids.length === 0 ? '' : this.tokenizer.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false });
  }
}

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));
