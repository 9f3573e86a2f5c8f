"""Binary Authorization's policies, which are stored and read. Nothing here checks an image."""
