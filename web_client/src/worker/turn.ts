/** The life of one turn: ids or hidden states up, tokens down, until the server says done. */
import type { Frame } from '../protocol/frame';
import type { ClientMessage, Done, Plan } from '../protocol/messages.generated';
import type { Hidden } from '../session/hidden';
import type { ClientSession, Happening, TurnRequest, Work } from '../session/session';

/** What a turn needs of a connection; `ServerLink` is one. */
export interface TurnLink {
  readonly session: ClientSession;
  readonly alive: boolean;
  /** Whether `next` would give something at once. */
  readonly hasNews: boolean;
  send(message: ClientMessage): void;
  sendFrame(frame: Frame): Promise<void>;
  next(): Promise<Happening>;
}

/** A `request` of null goes on with the turn in work, after a lost connection. `onPlan` is called when the server changes the split within the turn. Throws what ended the turn early; unless the connection is gone, the session is then ready for the next turn. */
export async function runTurn(
  link: TurnLink,
  request: TurnRequest | null,
  compute: (work: Work) => Promise<Hidden>,
  onPlan: (plan: Plan) => void,
  onTokens: (ids: readonly number[]) => void,
): Promise<Done> {
  const { session } = link;
  if (request !== null) {
    const { message, frames } = session.begin(request);
    link.send(message);
    for (const frame of frames) await link.sendFrame(frame);
  }
  for (;;) {
    const work = link.hasNews || !link.alive ? null : session.nextWork();
    if (work !== null) {
      try {
        const frame = session.computed(work, await compute(work));
        if (frame !== null) await link.sendFrame(frame);
      } catch (error) {
        await giveUp(link);
        throw error;
      }
      continue;
    }
    const happening = await link.next();
    if (happening.type === 'tokens') onTokens(happening.ids);
    if (happening.type === 'replanned') {
      onPlan(happening.plan);
      link.send(happening.message);
      for (const frame of happening.frames) await link.sendFrame(frame);
    }
    if (happening.type === 'refused') throw happening.error;
    if (happening.type === 'done') {
      if (happening.failure !== null) throw happening.failure;
      return happening.done;
    }
  }
}

/** Cancel, and read on to the end of the turn, which may have arrived already: the next turn must not take it for its own. */
async function giveUp(link: TurnLink): Promise<void> {
  const cancel = link.session.cancel();
  if (cancel !== null) link.send(cancel);
  for (;;) {
    const { type } = await link.next();
    if (type === 'done' || type === 'refused') return;
  }
}
