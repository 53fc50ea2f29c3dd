/** In place of worker/ort: no runtime is there that could fail. */
import { RuntimeError } from '../../src/protocol/errors';

export const deviceLost = (): RuntimeError => new RuntimeError('device_lost', 'Gone.');
