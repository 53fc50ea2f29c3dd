/** JSON control messages, checked against the schema at the edge (PROTOCOL.md, section 1). */
import { Validator } from '@cfworker/json-schema';
import schema from '../../../protocol/schemas/messages.schema.json';
import { ProtocolError } from './errors';
import { parseStrictJson } from './json';
import type { ClientMessage, ServerMessage } from './messages.generated';

type Sender = 'client' | 'server';

const SENT_BY = {
  client: ['hello', 'open', 'report', 'turn', 'adopt', 'cancel', 'close'],
  server: ['welcome', 'queued', 'plan', 'done', 'error'],
} as const;

/** `report` is also the name of the object inside `open`. */
const DEFINITION: Readonly<Record<string, string>> = { report: 'report_message' };

// Interpreted, not compiled: a page with a strict Content-Security-Policy may not make functions from text.
const validators = new Map<string, Validator>();

function validatorOf(type: string): Validator {
  let validator = validators.get(type);
  if (validator === undefined) {
    validator = new Validator({ $ref: `#/$defs/${DEFINITION[type] ?? type}`, $defs: schema.$defs }, '2020-12');
    validators.set(type, validator);
  }
  return validator;
}

export function encodeMessage(message: ClientMessage): string {
  return JSON.stringify(message);
}

/** The message in `text`, as the server sent it. Throws `malformed_message`, naming the member that is wrong. */
export function decodeServerMessage(text: string): ServerMessage {
  return decodeMessage(text, 'server') as ServerMessage;
}

/** Both directions, for the vectors; the client itself reads only what a server sends. */
export function decodeMessage(text: string, sender: Sender): ClientMessage | ServerMessage {
  let value: unknown;
  try {
    value = parseStrictJson(text);
  } catch (error) {
    throw malformed(error instanceof SyntaxError ? error.message : 'it is not JSON');
  }
  if (typeof value !== 'object' || value === null || !('type' in value)) throw malformed('it is no object with a `type`');
  const { type } = value;
  const allowed: readonly unknown[] = SENT_BY[sender];
  if (typeof type !== 'string' || !allowed.includes(type)) throw malformed(`\`type\` is none of ${allowed.join(', ')}`);
  const { valid, errors } = validatorOf(type).validate(value);
  if (!valid) throw malformed(`\`${type}\`: ${errors.at(-1)?.error ?? 'it does not match the schema'} (${errors.at(-1)?.instanceLocation ?? '#'})`);
  return value as ClientMessage | ServerMessage;
}

function malformed(why: string): ProtocolError {
  return new ProtocolError('malformed_message', `A message is not valid: ${why}. Reload the page; if it happens again, report it.`);
}
