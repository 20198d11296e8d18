"""vLLM in place of the engine, for a generator or an evaluator: many GPUs' worth of decoding.

AsyncLLM runs in this process (its workers in processes of their own), every text is asked for with
the LoRA that it needs, and several LoRAs share a batch. What vLLM is asked and what its answers
mean is decided by plain functions; only `decoder` imports vllm. What vLLM's habits force on its
callers stands in the docstrings of `launch` and `adapters`.
"""
