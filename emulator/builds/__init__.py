"""Cloud Build: builds that make images, and triggers, which are stored and read but never fire.

Files: `urls` lists the routes; `responses` and `models` are those of builds, `trigger_responses`
and `triggers` those of triggers. `steps` reads what a build asks for, and `work` does it: with
`packing`, which reads Dockerfiles itself, or with `engine`, which uses Docker.
"""
