"""What comes in and what goes out: one operation of TTIR, and the LLVM instructions for it.

Imported by the loop nests above it; imports nothing of gptwin. Read first: `forms`, what elements
are inside a loop, then `arithmetic` and `memory`. `ttir` reads Triton's IR, `writer` writes LLVM's.
"""
