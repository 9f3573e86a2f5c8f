"""Several services: which ones are meant, and one verb over all of them."""
