"""gptwin: the ChatGPT training stack twice, in NumPy to be read and in Triton to be fast."""

__version__ = "0.1.0"
