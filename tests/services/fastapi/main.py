"""A service of FastAPI and uvicorn, as small as can be; delivered by the tests."""

import os

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/version")
async def version() -> dict[str, str | None]:
    """Return the commit that was built, and the revision."""
    return {"commit": os.environ.get("COMMIT_SHA"), "revision": os.environ.get("K_REVISION")}


@app.get("/health")
async def health() -> dict[str, str]:
    """Return 200."""
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=int(os.environ["PORT"]))
