/**
 * The error tree. Every error has a wire code (PROTOCOL.md, section 6, or one of this client's own) and a message of one
 * sentence that tells a person what to do.
 *
 *   SplitLLMError
 *   ├── ProtocolError   what came over the wire breaks PROTOCOL.md
 *   ├── SessionError    the session cannot do what was asked of it, or the server refused
 *   ├── BundleError     a file of the bundle is missing, damaged or of a format that is not known
 *   ├── TextError       the tokenizer or the chat template cannot be used
 *   ├── RuntimeError    the backend cannot load or run a block
 *   └── ConnectionError the server cannot be reached, or went away
 */
export class SplitLLMError extends Error {
  constructor(
    readonly code: string,
    sentence: string,
  ) {
    super(sentence);
    this.name = new.target.name;
  }
}

export class ProtocolError extends SplitLLMError {}

export class SessionError extends SplitLLMError {}

export class BundleError extends SplitLLMError {}

export class TextError extends SplitLLMError {}

export class RuntimeError extends SplitLLMError {}

export class ConnectionError extends SplitLLMError {}
