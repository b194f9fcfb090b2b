"""`tunelm serve`: the OpenAI protocol, for answering and for fine-tuning."""
