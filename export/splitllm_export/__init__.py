"""From a Hugging Face model to a verified bundle (protocol/BUNDLE.md); the only importer of torch and transformers.

    source      the checkpoint, its tokenizer and what may be exported at all
    attention   transformers' attention as one GroupQueryAttention node
    modules     one block, the head and the shared tables as torch modules
    tracing     a torch module -> ONNX, through Optimum
    graph       the traced graph -> the graph that BUNDLE.md describes
    int4        float32 weights -> 4-bit weights
    layout      files, hashes and manifest.json
    chain       the blocks of a bundle, run one after the other by ONNX Runtime
    gate        the chain against transformers: nothing is published that differs
    exporter    all of it in order;  verifier  the checks alone

Importing this package imports none of the heavy libraries; `verifier` needs torch only to compare with a model.
"""
