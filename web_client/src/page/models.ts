/** Which models the server has, and which of them answers. */
import type { State } from './state';

/** Their names, the first of them for who chooses none; none where the server does not say. */
export async function listModels(server: string): Promise<readonly string[]> {
  try {
    const response = await fetch(`${server}/v1/models`);
    const { data } = (await response.json()) as { data?: unknown };
    if (!response.ok || !Array.isArray(data)) return [];
    return data.map((model: unknown) => (Object(model) as { id?: unknown }).id).filter((id) => typeof id === 'string');
  } catch {
    return [];
  }
}

/** The model of the open conversation's next answer; null for the server's first, as long as its name is not known. */
export function modelOf({ models, conversation, settings }: Pick<State, 'models' | 'conversation' | 'settings'>): string | null {
  const wanted = wantedModel({ conversation, settings });
  return wanted !== null && (models.length === 0 || models.includes(wanted)) ? wanted : (models[0] ?? null);
}

/** What was chosen for the conversation, or for new ones, whether the server still has it or not. */
export function wantedModel({ conversation, settings }: Pick<State, 'conversation' | 'settings'>): string | null {
  return conversation.model ?? settings.model;
}
