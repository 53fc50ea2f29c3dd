/** What a model may have been made to say, or a file to hold. Also read by tests/e2e, through hostile.json. */
import sources from './hostile.json' with { type: 'json' };

export const HOSTILE: readonly string[] = sources;
