"""Faults: what goes wrong at Google's, by name, for as long as it is wanted.

`POST /_local/faults {"name": …}` starts a fault. `DELETE /_local/faults/NAME` ends it, and so does
stopping the local Cloud Run. The messages are Google's, as users quote them.
"""
