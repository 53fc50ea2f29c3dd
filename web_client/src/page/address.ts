/** The address names the open conversation, so that a reload, a bookmark and the Back button find it. */
import type { Library } from './library';
import type { Store } from './store';

const NAMED = /^#chat=([0-9a-f]{32})$/;

/** The conversation that the address names. */
export function addressedChat(): string | null {
  return NAMED.exec(location.hash)?.[1] ?? null;
}

/** Opens what the address names, and keeps the two together from then on. */
export async function followAddress(store: Store, library: Library): Promise<void> {
  addEventListener('popstate', () => {
    const id = addressedChat();
    if (id === null) library.begin();
    else void library.open(id);
  });

  const first = addressedChat();
  if (first !== null) await library.open(first);
  let shown = store.state().conversation.id;

  function follow(): void {
    const { conversation } = store.state();
    // An empty conversation is not kept, so it has no address.
    const id = conversation.turns.length > 0 ? conversation.id : null;
    if (id === addressedChat()) {
      shown = conversation.id;
      return;
    }
    const address = `${location.pathname}${location.search}${id === null ? '' : `#chat=${id}`}`;
    if (conversation.id === shown) history.replaceState(null, '', address);
    else history.pushState(null, '', address);
    shown = conversation.id;
  }

  store.subscribe(follow);
  follow();
}
