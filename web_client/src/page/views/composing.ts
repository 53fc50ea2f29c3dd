/** What some browsers give as the key of an Enter that ends a composition, after `isComposing` is false again. */
const COMPOSITION_KEY_CODE = 229;

/** Whether a key belongs to an input method, which writes what is not on the keyboard: its Enter chooses a word and sends nothing. */
export function isComposing(event: KeyboardEvent): boolean {
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- Safari ends a composition before its keydown; only keyCode tells.
  return event.isComposing || event.keyCode === COMPOSITION_KEY_CODE;
}
