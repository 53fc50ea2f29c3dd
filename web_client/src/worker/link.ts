/** One connection to the server and the session on it: carries out what the session's state machine says. */
import type { Source } from '../bundle/fetching';
import { ConnectionError, SessionError, SplitLLMError } from '../protocol/errors';
import { decodeFrame, encodeFrame } from '../protocol/frame';
import type { Frame } from '../protocol/frame';
import { decodeServerMessage, encodeMessage } from '../protocol/message';
import type { ClientMessage, Plan, Report, Split, Welcome } from '../protocol/messages.generated';
import { Patience } from '../session/patience';
import { ClientSession } from '../session/session';
import type { Happening } from '../session/session';
import { Mailbox } from '../session/mailbox';
import type { TurnLink } from './turn';

const CONNECT_TIMEOUT_MS = 15_000;
/** A browser queues what is sent without any bound of its own. */
const MOST_BUFFERED_BYTES = 4 * 2 ** 20;
const BUFFER_POLL_MS = 4;

export interface OpenRequest {
  readonly report: Report;
  readonly split: Split;
  readonly wire: 'float16' | 'float32';
  readonly maxTokens: number;
  readonly expectedPromptTokens: number;
  /** Wait where the server has no room, rather than be refused. */
  readonly queue: boolean;
}

/** Calls once a second until what it returns is called. */
export type EverySecond = (call: () => void) => () => void;

const everySecond: EverySecond = (call) => {
  const timer = setInterval(call, 1000);
  return () => {
    clearInterval(timer);
  };
};

export class ServerLink implements TurnLink {
  private readonly happenings = new Mailbox<Happening>();
  private open = true;
  private readonly patience = new Patience();
  private readonly stopWatching: () => void;
  /** Of messages and frames, since the connection began. */
  sentBytes = 0;
  receivedBytes = 0;
  /** Hears the place in the server's queue, 1 being next, and null when it waits no more. */
  onPlace: (place: number | null) => void = () => undefined;
  private inLine = false;
  /** Bytes that had not left a second ago. */
  private buffered = 0;

  private constructor(
    private readonly socket: WebSocket,
    private readonly onClose: () => void,
    every: EverySecond,
    /** New, or one whose connection was lost. */
    readonly session: ClientSession,
  ) {
    this.stopWatching = every(() => {
      this.watch();
    });
    socket.addEventListener('message', (event: MessageEvent<string | ArrayBuffer>) => {
      this.receive(event.data);
    });
    socket.addEventListener('close', () => {
      this.end(new ConnectionError('disconnected', 'The connection to the server was lost; ask again to reconnect.'));
    });
  }

  /** Connect and say hello to the source's model. `onClose` is called when the connection ends, whoever ended it. */
  static async connect({ server, apiKey, model = null }: Source, agent: string, bundle: string | null, onClose: () => void, every = everySecond, session = new ClientSession()): Promise<ServerLink> {
    // A browser's WebSocket takes no header but this one; an address is written into logs.
    const protocols = apiKey === undefined ? [] : ['splitllm', `splitllm.key.${apiKey}`];
    const socket = new WebSocket(`${server.replace(/^http/, 'ws')}/v1/session`, protocols);
    socket.binaryType = 'arraybuffer';
    await opened(socket);
    const link = new ServerLink(socket, onClose, every, session);
    link.send(link.session.hello(agent, model, bundle));
    await link.expect('welcomed');
    return link;
  }

  get alive(): boolean {
    return this.open;
  }

  get welcome(): Welcome {
    const { welcome } = this.session;
    if (welcome === null) throw new SessionError('unexpected_message', 'The server has not answered yet; wait a moment.');
    return welcome;
  }

  /** Whether something has arrived that `next` would give at once. */
  get hasNews(): boolean {
    return !this.happenings.isEmpty;
  }

  /** Open the session, or go on with it; a turn in work goes on with what `next` gives. */
  async openSession(request: OpenRequest): Promise<Plan> {
    this.send(this.session.open(request.report, request.split, request.wire, request.maxTokens, request.expectedPromptTokens, request.queue));
    const happening = await this.expect('planned', 'resumed');
    if (happening.type === 'resumed') {
      if (happening.ids.length > 0) this.happenings.putFirst({ type: 'tokens', ids: happening.ids });
      if (happening.message !== null) this.send(happening.message);
      for (const frame of happening.frames) await this.sendFrame(frame);
    }
    return happening.plan;
  }

  async replan(report: Report, split: Split, expectedPromptTokens: number): Promise<Plan> {
    this.send(this.session.report(report, split, expectedPromptTokens));
    return (await this.expect('planned')).plan;
  }

  next(): Promise<Happening> {
    return this.happenings.next();
  }

  send(message: ClientMessage): void {
    if (!this.open) return;
    const text = encodeMessage(message);
    // Nothing but ASCII is sent in number; a byte more or less of a name is no matter.
    this.sentBytes += text.length;
    this.socket.send(text);
  }

  async sendFrame(frame: Frame): Promise<void> {
    while (this.open && this.socket.bufferedAmount > MOST_BUFFERED_BYTES) await new Promise((resolve) => setTimeout(resolve, BUFFER_POLL_MS));
    if (!this.open) return;
    const bytes = encodeFrame(frame);
    this.sentBytes += bytes.byteLength;
    this.socket.send(bytes);
  }

  close(): void {
    if (!this.open) return;
    this.send(this.session.close());
    this.end(new ConnectionError('disconnected', 'The connection was closed.'));
  }

  /** Throws the server's refusal. */
  private async expect<T extends Happening['type']>(...types: T[]): Promise<Extract<Happening, { type: T }>> {
    const happening = await this.next();
    if (happening.type === 'refused') throw happening.error;
    if (!(types as string[]).includes(happening.type)) throw new SessionError('unexpected_message', 'The server answered something else; reload the page.');
    return happening as Extract<Happening, { type: T }>;
  }

  /** A connection whose other end is gone looks open for minutes: silence where something is owed ends it. */
  private watch(): void {
    const { bufferedAmount } = this.socket;
    if (bufferedAmount < this.buffered) this.patience.heard();
    this.buffered = bufferedAmount;
    const owed = this.session.owed ?? (bufferedAmount > MOST_BUFFERED_BYTES ? 'step' : null);
    if (this.patience.tick(owed)) this.end(new ConnectionError('silent', 'The server does not answer any more; ask again to reconnect.'));
  }

  private receive(data: string | ArrayBuffer): void {
    this.patience.heard();
    this.receivedBytes += typeof data === 'string' ? data.length : data.byteLength;
    try {
      const happening = this.session.receive(typeof data === 'string' ? decodeServerMessage(data) : decodeFrame(data));
      if (happening.type !== 'nothing') this.place(happening.type === 'queued' ? happening.place : null);
      if (happening.type === 'queued') return;
      if (happening.type === 'ended') this.end(happening.error);
      else if (happening.type === 'give_up') this.send(happening.message);
      else if (happening.type !== 'nothing') this.happenings.put(happening);
    } catch (error) {
      this.end(error instanceof SplitLLMError ? error : new ConnectionError('disconnected', 'A message of the server could not be read; ask again to reconnect.'));
    }
  }

  private place(place: number | null): void {
    if (place !== null || this.inLine) this.onPlace(place);
    this.inLine = place !== null;
  }

  private end(error: Error): void {
    if (!this.open) return;
    this.open = false;
    this.place(null);
    this.stopWatching();
    this.happenings.fail(error);
    this.socket.close();
    this.onClose();
  }
}

function opened(socket: WebSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (): void => {
      clearTimeout(timer);
      socket.close();
      reject(new ConnectionError('unreachable', 'The server cannot be reached; check your connection and try again.'));
    };
    const timer = setTimeout(fail, CONNECT_TIMEOUT_MS);
    socket.addEventListener('error', fail, { once: true });
    socket.addEventListener('close', fail, { once: true });
    socket.addEventListener(
      'open',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
