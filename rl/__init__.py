"""The ChatGPT pipeline: from a language model to one that people prefer."""
