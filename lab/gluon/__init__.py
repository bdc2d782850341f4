"""Are the barriers of a Gluon kernel right? Its own source, played by a model of Hopper's pipeline.

Imports lab; in it machine/ (what orders what: barriers, copies, products in flight) and language/
(what a kernel may say). Read first: machine/barrier.py, then machine/shared.py; play.py runs a
kernel, mutants.py breaks one barrier at a time, docs/barriers.md says what this cannot see.
"""
