"""The OpenAI protocol: chat completions and embeddings, for whatever was written for OpenAI, vLLM and their like."""
