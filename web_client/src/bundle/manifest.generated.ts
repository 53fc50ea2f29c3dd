/* Generated from protocol/schemas/manifest.schema.json; mend with `npm run generate`. */

export type FileName = string;

export interface Manifest {
  format: 'splitllm-bundle';
  format_version: 1;
  model: {
    name: string;
    architecture: string;
    blocks: number;
    hidden_size: number;
    heads: number;
    kv_heads: number;
    head_dim: number;
    vocab_size: number;
    max_context: number;
  };
  tokenizer: {
    file: FileName;
    chat_template: string;
    bos_token: string | null;
    eos_token: string | null;
    /**
     * @minItems 1
     */
    end_tokens: number[];
  };
  generation: {
    temperature?: number;
    top_p?: number;
    top_k?: number;
    repetition_penalty?: number;
  };
  constants: {
    [k: string]: {
      float32?: Tensor;
      float16?: Tensor;
    };
  };
  embed: {
    float32: {
      file: FileName;
      row_bytes: number;
      rows_per_chunk: number;
      hashes: FileName;
    };
    float16?: {
      file: FileName;
      row_bytes: number;
      rows_per_chunk: number;
      hashes: FileName;
    };
    int8?: {
      file: FileName;
      row_bytes: number;
      rows_per_chunk: number;
      hashes: FileName;
    };
    int4?: {
      file: FileName;
      row_bytes: number;
      rows_per_chunk: number;
      hashes: FileName;
    };
    int4f16?: {
      file: FileName;
      row_bytes: number;
      rows_per_chunk: number;
      hashes: FileName;
    };
  };
  /**
   * @minItems 1
   */
  blocks: {
    float32: BlockVariant;
    float16?: BlockVariant;
    int8?: BlockVariant;
    int4?: BlockVariant;
    int4f16?: BlockVariant;
  }[];
  head: {
    float32: {
      graph: FileName;
      weights: FileName | null;
      activations: 'float32' | 'float16';
    };
    float16?: {
      graph: FileName;
      weights: FileName | null;
      activations: 'float32' | 'float16';
    };
    int8?: {
      graph: FileName;
      weights: FileName | null;
      activations: 'float32' | 'float16';
    };
    int4?: {
      graph: FileName;
      weights: FileName | null;
      activations: 'float32' | 'float16';
    };
    int4f16?: {
      graph: FileName;
      weights: FileName | null;
      activations: 'float32' | 'float16';
    };
  };
  files: {
    [k: string]: {
      size: number;
      sha256: string;
    };
  };
  export: {
    tool: string;
    server?: {
      blocks: 'float32' | 'float16' | 'int8' | 'int4' | 'int4f16';
      head: 'float32' | 'float16' | 'int8' | 'int4' | 'int4f16';
    };
    variants: {
      [k: string]: {
        [k: string]: number | string | boolean;
      };
    };
  };
}
export interface Tensor {
  file: FileName;
  offset: number;
  /**
   * @minItems 1
   * @maxItems 8
   */
  shape: number[];
}
export interface BlockVariant {
  graph: FileName;
  server_graph?: FileName;
  weights: FileName | null;
  activations: 'float32' | 'float16';
  constants: {
    [k: string]: string;
  };
}
