"""The OpenAI protocol: chat completions, for whatever was written for OpenAI, vLLM and their like."""
