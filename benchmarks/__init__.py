"""Timing: what gptwin is compared with, and how."""
