"""Secret Manager: secrets, their versions and their values.

Files: `urls` lists the routes, `responses` speaks the wire format, `models` keeps the secrets, and
`variables` gives their values to instances.
"""
