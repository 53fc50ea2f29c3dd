import type { Command, EngineEvent, EngineOptions } from '../../src/api';
import type { EnginePort } from '../../src/client/engine';
import type { SplitLLMError } from '../../src/protocol/errors';

export const OPTIONS: EngineOptions = { server: 'http://127.0.0.1:8000', model: null, split: 'auto', backend: 'auto', variant: 'auto', wire: 'float16', effort: null, weights: { keep: true, download: 'ask' } };

/** A worker in memory that notes what it is told. */
export class FakePort implements EnginePort {
  readonly commands: Command[] = [];
  closed = false;
  private listener: (event: EngineEvent) => void = () => undefined;
  private died: (error: SplitLLMError) => void = () => undefined;

  post(command: Command): void {
    this.commands.push(command);
  }

  listen(listener: (event: EngineEvent) => void, died: (error: SplitLLMError) => void): void {
    this.listener = listener;
    this.died = died;
  }

  close(): void {
    this.closed = true;
  }

  /** Settles when everybody has taken it in. */
  async emit(event: EngineEvent): Promise<void> {
    if (!this.closed) this.listener(event);
    await settled();
  }

  async die(error: SplitLLMError): Promise<void> {
    this.died(error);
    await settled();
  }

  get types(): readonly string[] {
    return this.commands.map((command) => command.type);
  }
}

/** After all promises that are settled now have been heard. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
