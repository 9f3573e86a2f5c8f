"""A service that takes calls with the right key only."""

import functools
import os
import secrets

import google.auth
from fastapi import Depends, FastAPI, Header, HTTPException
from google.cloud import secretmanager

app = FastAPI(title="Secret key")


@functools.cache
def api_key() -> str:
    """Return the key: the variable that Cloud Run set, or the secret's latest version."""
    if key := os.environ.get("API_KEY"):
        return key
    _credentials, project = google.auth.default()
    client = secretmanager.SecretManagerServiceClient(
        transport="rest", client_options={"api_endpoint": os.environ.get("SECRET_MANAGER_ENDPOINT")}
    )
    name = f"projects/{project}/secrets/{os.environ.get('SECRET_NAME', 'api-key')}/versions/latest"
    return client.access_secret_version(name=name).payload.data.decode()


def checked(x_api_key: str = Header("")) -> None:
    if not secrets.compare_digest(x_api_key.encode(), api_key().encode()):
        raise HTTPException(401, "X-API-Key is missing or wrong")


@app.get("/")
def root():
    return {"service": "secret-key"}


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/private", dependencies=[Depends(checked)])
def private():
    return {"message": "the key is right"}
