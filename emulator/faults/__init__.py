"""Faults: errors that Google's APIs return in real life, started and ended by name.

`POST /_local/faults {"name": …}` starts a fault. `DELETE /_local/faults/NAME` ends it, and so does
stopping the local Cloud Run. The messages are Google's, as users quote them.
"""
