"""The instruments that prove the twins agree: verify, inspect and the list of twins."""
