"""An OCI registry: `docker push` and `docker pull` work against it, and instances run its images.

Files: `urls` lists the routes, `responses` and `blob_responses` speak the wire format, `models` is
the registry without HTTP, `storage` its files, `uploads` the blobs that are being received, and
`images` reads an image as an instance needs it.
"""
