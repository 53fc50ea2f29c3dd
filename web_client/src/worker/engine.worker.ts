/** The engine's thread: commands in, events out (src/api.ts). */
import type { Command, EngineEvent } from '../api';
import { Engine } from './engine';

let engine: Engine | null = null;

const emit = (event: EngineEvent): void => {
  self.postMessage(event);
};

self.addEventListener('message', ({ data: command }: MessageEvent<Command>) => {
  switch (command.type) {
    case 'connect':
      engine?.close();
      engine = new Engine(command.options, emit);
      engine.start();
      return;
    case 'ask':
      engine?.ask(command);
      return;
    case 'stop':
      engine?.stop(command.ask);
      return;
    case 'effort':
      engine?.setEffort(command.effort);
      return;
    case 'weights':
      void engine?.setWeights(command.weights);
      return;
    case 'storage':
      void engine?.storage.report();
      return;
    case 'clear_storage':
      void engine?.storage.clear();
      return;
    case 'close':
      engine?.close();
      engine = null;
      return;
    case 'diagnose':
      void engine?.diagnose();
      return;
  }
});
