/** The life of one turn: ids or hidden states up, tokens down, until the server says done. */
import type { Done } from '../protocol/messages.generated';
import type { Hidden } from '../session/hidden';
import type { TurnRequest, Work } from '../session/session';
import type { ServerLink } from './link';

/** Throws what ended the turn early; unless the connection is gone, the session is then ready for the next turn. */
export async function runTurn(
  link: ServerLink,
  request: TurnRequest,
  compute: (work: Work) => Promise<Hidden>,
  onTokens: (ids: readonly number[]) => void,
): Promise<Done> {
  const { session } = link;
  const { message, frames } = session.begin(request);
  link.send(message);
  for (const frame of frames) await link.sendFrame(frame);
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
    if (happening.type === 'refused') throw happening.error;
    if (happening.type === 'done') {
      if (happening.failure !== null) throw happening.failure;
      return happening.done;
    }
  }
}

/** Cancel, and wait until the server has ended the turn. */
async function giveUp(link: ServerLink): Promise<void> {
  const cancel = link.session.cancel();
  if (cancel !== null) link.send(cancel);
  while (link.session.state === 'turn') await link.next();
}
