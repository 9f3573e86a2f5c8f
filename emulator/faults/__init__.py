"""Faults: errors that Google's APIs return in real life, started and ended by name.

`POST /_local/faults {"name": …}` starts a fault, and so does `./ship up --fault NAME`.
`DELETE /_local/faults/NAME` ends it, and so does stopping the local Cloud Run. `settings` has the
one table of faults. Messages that Google writes are Google's, as users quote them.
"""
