"""From a Hugging Face model to a verified bundle (protocol/BUNDLE.md); the only importer of torch and transformers.

    source      the checkpoint, its tokenizer and what may be exported at all
    weights     weights where they lie: mapped, in float32 only where and while something is computed
    weightless  tracing a part without its weights, and getting each of them when it is written
    attention   transformers' attention as one GroupQueryAttention node
    modules     one block, the head and the shared tables as torch modules
    tracing     a torch module -> ONNX, through Optimum
    graph       the traced graph -> the graph that BUNDLE.md describes
    quantize    float32 matrices -> 4-bit or 8-bit matrices;  half  float32 graphs -> float16 graphs
    variants    what a bundle's variants are, made of the above
    parts       embedding, blocks and head, written one after the other
    layout      files, hashes and manifest.json
    chain       the blocks of a bundle, run one after the other by ONNX Runtime
    gate        the chain against transformers: nothing is published that differs
    exporter    all of it in order;  verifier  the checks alone

Importing this package imports none of the heavy libraries; `verifier` needs torch only to compare with a model.
"""
