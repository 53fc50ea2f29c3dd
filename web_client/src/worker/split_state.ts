/** A plan as the page shows it. */
import type { SplitState } from '../api';
import type { Plan, Welcome } from '../protocol/messages.generated';
import type { LocalModel } from './local';

/** `local` is what runs some of the model's blocks here. */
export function splitState(plan: Plan, { model, blocks }: Pick<Welcome, 'model' | 'blocks'>, local: LocalModel | null): SplitState {
  return {
    model,
    split: plan.split,
    blocks,
    backend: local?.backend ?? 'none',
    variant: local?.variant ?? 'float32',
    wire: plan.wire,
    reason: plan.reason,
    feasible: plan.feasible,
    savedBlockSteps: plan.saved.block_steps,
    savedServerTime: plan.saved.server_time,
    rttMs: plan.rtt_ms,
    predictedTtftMs: plan.predicted.ttft_ms,
    predictedTpotMs: plan.predicted.tpot_ms,
  };
}
