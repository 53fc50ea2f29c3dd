/** A plan as the page shows it. */
import type { SplitState } from '../api';
import type { Plan } from '../protocol/messages.generated';
import type { LocalModel } from './local';

/** `blocks` are all that the model has, `local` is what runs some of them here. */
export function splitState(plan: Plan, blocks: number, local: LocalModel | null): SplitState {
  return {
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
