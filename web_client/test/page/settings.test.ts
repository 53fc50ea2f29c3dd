import { expect, it } from 'vitest';
import { DEFAULT_SETTINGS, settingsFrom } from '../../src/page/settings';

it('settings come back as they were kept', () => {
  const settings = { temperature: 0.7, topP: 0.9, maxTokens: 16, seed: 3, effort: 0.25, keepWeights: false, lessData: true, model: 'large', instructions: 'Be brief.' };
  expect(settingsFrom(JSON.stringify(settings))).toEqual(settings);
});

it.each([null, '', 'x', '[]', '7', '{"temperature":"hot","topP":0,"maxTokens":1.5,"seed":-1,"model":5,"instructions":4}', '{"temperature":null,"seed":1e99}'])('%s gives the defaults', (kept) => {
  expect(settingsFrom(kept)).toEqual(DEFAULT_SETTINGS);
});
